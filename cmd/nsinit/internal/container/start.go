package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"github.com/nsinit/nsinit/fs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostSecrets are what a container that sees the host's files does not see: keys, password hashes, and nsinit's own
// state. It is a convenience and no boundary for reading.
var hostSecrets = [...]string{
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d",
	"/etc/ssh/ssh_host_*_key", "/etc/ssl/private", "/etc/wireguard", "/etc/krb5.keytab", "/etc/NetworkManager/system-connections",
	"/etc/ppp/chap-secrets", "/etc/ppp/pap-secrets", "/etc/cni", "/home",
	"/var/lib/nsinit", "/var/lib/cni", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/systemd", "/var/spool/cron",
}

// fsConfig is what fs is asked for.
func (s *Spec) fsConfig() fs.Config {
	linux := s.OCI.Linux
	cfg := fs.Config{
		Root: s.OCI.Root.Path, Readonly: s.OCI.Root.Readonly, NoPivot: s.NoPivot, Mounts: s.OCI.Mounts,
		MaskedPaths: linux.MaskedPaths, ReadonlyPaths: linux.ReadonlyPaths, MountLabel: linux.MountLabel,
		Privileged: s.Privileged, HostNet: s.HostNet, Userns: s.userns(), Cgroup: cgroupRoot() != "", ShmSize: s.ShmSize,
	}
	if s.Privileged {
		cfg.MaskedPaths, cfg.ReadonlyPaths = nil, nil
	}
	if s.Overlay {
		cfg.Root = ""
		cfg.Hidden = hostSecrets[:]
		// root's home is full of secrets, but a home has to be there.
		home := specs.Mount{Destination: "/root", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=700"}}
		cfg.Mounts = append([]specs.Mount{home}, cfg.Mounts...)
	}
	return cfg
}

// startFrame is all that the init is told.
func (h *host) startFrame() (*wire.Start, error) {
	s := h.spec
	p := s.OCI.Process
	cfg := s.fsConfig()
	files, err := h.files()
	if err != nil {
		return nil, err
	}
	cfg.Files = files
	start := &wire.Start{
		Args: p.Args, Env: h.environment(), Cwd: p.Cwd, User: s.User,
		Terminal: p.Terminal, Hostname: s.hostname(), Sysctls: h.sysctls(),
		Loopback: !s.HostNet && !s.joins(), Networks: h.rec.state.Networks,
		Root: cfg, PreparedRoot: h.root != nil, Userns: s.userns(),
		LSM: s.lsmConfig(), Rlimits: p.Rlimits, Capabilities: p.Capabilities, NoNewPrivs: p.NoNewPrivileges, Umask: *p.User.Umask,
		Init: s.Init, Detach: s.Detach && !h.isMonitor(), Trace: h.Trace != nil,
	}
	if p.Terminal {
		start.Size = terminalSize()
	}
	return start, nil
}

// hostname is the one asked for, or the id as far as a host name can be like it.
func (s *Spec) hostname() string {
	if s.OCI.Hostname != "" {
		return s.OCI.Hostname
	}
	const hostNameMax = 63 // of a label (RFC 1035, 2.3.4)
	name := strings.Map(func(c rune) rune {
		if c == '_' || c == '+' || c == '.' {
			return '-'
		}
		return c
	}, s.ID)
	return strings.Trim(name[:min(len(name), hostNameMax)], "-")
}

// environment is the program's: the spec's, with what only a start knows.
func (h *host) environment() []string {
	env := slices.Clone(h.spec.OCI.Process.Env)
	if !hasEnv(env, "HOSTNAME") {
		env = append(env, "HOSTNAME="+h.spec.hostname())
	}
	if h.spec.OCI.Process.Terminal && !hasEnv(env, "TERM") {
		env = append(env, "TERM=xterm")
	}
	return env
}

// sysctls are the spec's, without those of a network namespace that isn't the container's own.
func (h *host) sysctls() (list []wire.Sysctl) {
	s := h.spec
	for key, value := range s.OCI.Linux.Sysctl {
		if strings.HasPrefix(key, "net.") && (s.HostNet || s.joins()) || key == pingSysctl && s.userns() && value == pingGroups {
			continue
		}
		list = append(list, wire.Sysctl{Key: key, Value: value})
	}
	slices.SortFunc(list, func(a, b wire.Sysctl) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// files are made for the container, so that nothing is ever written into its rootfs.
func (h *host) files() ([]fs.File, error) {
	resolv, err := h.resolvConf()
	if err != nil {
		return nil, fmt.Errorf("resolv.conf: %w", err)
	}
	hosts, err := h.hosts()
	if err != nil {
		return nil, fmt.Errorf("hosts: %w", err)
	}
	const mode = 0o644
	return []fs.File{
		{Path: "/etc/resolv.conf", Content: resolv, Mode: mode},
		{Path: "/etc/hosts", Content: hosts, Mode: mode},
		{Path: "/etc/hostname", Content: []byte(h.spec.hostname() + "\n"), Mode: mode},
	}, nil
}
