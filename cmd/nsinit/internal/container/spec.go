package container

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/lsm"
	"github.com/nsinit/nsinit/netsetup"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Spec is what is asked for: the OCI runtime specification's own types, and
// what it lacks. The command line fills it, Validate checks it whole.
type Spec struct {
	ID  string     // [A-Za-z0-9_+-.], at most 255 bytes; "" = Run makes one
	OCI specs.Spec // Process, Root, Mounts, Hostname, Linux.{NetDevices,Sysctl,MaskedPaths,ReadonlyPaths,UIDMappings,GIDMappings,MountLabel}

	User         string             // NAME|UID[:GROUP|GID], looked up inside
	Overlay      bool               // no rootfs: the host's root under a throwaway overlay; OCI.Root.Path is ""
	Networks     []netsetup.Request // in order; empty = loopback only
	HostNet      bool               // --network host
	NoNet        bool               // --network none, said explicitly
	NetnsName    string             // bind the namespace under /run/netns
	DNS          netsetup.DNS       // --dns, --dns-search, --dns-option
	AddHosts     []HostEntry        // --add-host
	Privileged   bool
	Init         bool   // nsinit stays as PID 1
	Detach       bool   // leave it running
	Interactive  bool   // the program reads our stdin
	PidFile      string // "" = none
	CgroupParent string // below the unified hierarchy; "" = /nsinit
	NoForwarding bool   // refuse to change the host's forwarding
	NoPivot      bool   // MS_MOVE and chroot
	ShmSize      int64  // bytes; 0 = 64 MiB
}

// A HostEntry is one line of /etc/hosts.
type HostEntry = netsetup.HostName

// The default container is podman's, with NET_RAW: see the table in docs/default-container.md.
const (
	defaultPath   = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultUmask  = 0o022
	defaultLimit  = 1 << 20 // RLIMIT_NOFILE and RLIMIT_NPROC
	pingGroups    = "0 2147483647"
	pingSysctl    = "net.ipv4.ping_group_range"
	maxIDBytes    = 255
	maxNetnsBytes = 255
)

// Default returns the default container of one program: podman's defaults, no network but loopback.
func Default(args []string) *Spec {
	umask := uint32(defaultUmask)
	return &Spec{OCI: specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{},
		Process: &specs.Process{
			Args:            args,
			Cwd:             "/",
			User:            specs.User{Umask: &umask},
			Env:             []string{"PATH=" + defaultPath, "container=nsinit"},
			Rlimits:         []specs.POSIXRlimit{defaultRlimit("RLIMIT_NOFILE", unix.RLIMIT_NOFILE), defaultRlimit("RLIMIT_NPROC", unix.RLIMIT_NPROC)},
			NoNewPrivileges: true,
		},
		Linux: &specs.Linux{
			MaskedPaths:   fs.DefaultMaskedPaths(),
			ReadonlyPaths: fs.DefaultReadonlyPaths(),
			Sysctl:        map[string]string{pingSysctl: pingGroups},
		},
	}}
}

// defaultRlimit is podman's limit, lowered to what the caller has: raising it takes CAP_SYS_RESOURCE, which root
// in a container or a small VM may lack.
func defaultRlimit(name string, resource int) specs.POSIXRlimit {
	limit := uint64(defaultLimit)
	var have unix.Rlimit
	if unix.Getrlimit(resource, &have) == nil {
		limit = min(limit, have.Max)
	}
	return specs.POSIXRlimit{Type: name, Soft: limit, Hard: limit}
}

// Validate returns every fault of s that can be seen before anything is touched, one a line.
func (s *Spec) Validate() error {
	var errs []error
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("nsinit needs root: it makes namespaces and the host's network")
	}
	p := s.OCI.Process
	if p == nil || len(p.Args) == 0 || p.Args[0] == "" {
		return errors.New("process.args: needs a program; write it after the flags: nsinit run [flags] -- PROGRAM")
	}
	if s.ID != "" {
		add("--name", CheckID(s.ID))
	}
	if !filepath.IsAbs(p.Cwd) {
		add("--workdir", fmt.Errorf("%q: must be an absolute path; put / in front", p.Cwd))
	}
	add("--user", creds.ParseUser(s.User))
	add("--ulimit", creds.CheckRlimits(p.Rlimits))
	add("--cap-add", creds.CheckCapabilities(p.Capabilities))
	add("--rootfs", s.checkRoot())
	add("--pid-file", checkPidFile(s.PidFile))
	add("--netns-name", s.checkNetnsName())
	add("--cgroup-parent", checkCgroupParent(s.CgroupParent))
	errs = append(errs, s.checkNetworks()...)
	cfg := s.fsConfig()
	if err := cfg.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := s.lsmConfig().Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := fs.CheckKernel(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// CheckID refuses an id that could be a path, or that a file system can't hold.
func CheckID(id string) error {
	if id == "" || len(id) > maxIDBytes {
		return fmt.Errorf("%q: has %d bytes; 1 to %d are allowed", cutText(id), len(id), maxIDBytes)
	}
	for i := range len(id) {
		if c := id[i]; !isIDByte(c) {
			return fmt.Errorf("%q: %q is not allowed; letters, digits and _+-. are", cutText(id), c)
		}
	}
	if strings.HasPrefix(id, ".") || strings.HasPrefix(id, "-") {
		return fmt.Errorf("%q: must begin with a letter or a digit", cutText(id))
	}
	return nil
}

func isIDByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0
}

// cutText bounds a value of the user's for an error's one line.
func cutText(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}

func (s *Spec) checkRoot() error {
	path := s.OCI.Root.Path
	if s.Overlay {
		return nil
	}
	st, err := os.Stat(path)
	switch {
	case path == "":
		return errors.New("is empty; give a directory, or leave the flag out for the host's files under a throwaway overlay")
	case err != nil:
		return fmt.Errorf("%w; unpack the image there or correct the path", err)
	case !st.IsDir():
		return fmt.Errorf("%s: is no directory", path)
	}
	return nil
}

func checkPidFile(path string) error {
	if path == "" {
		return nil
	}
	st, err := os.Stat(filepath.Dir(path))
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s: is no directory", filepath.Dir(path))
	}
	return err
}

func (s *Spec) checkNetnsName() error {
	n := s.NetnsName
	switch {
	case n == "":
		return nil
	case s.HostNet:
		return errors.New("goes with a network namespace of the container's own, not with --network host")
	case len(n) > maxNetnsBytes || strings.ContainsAny(n, "/\x00") || n == "." || n == "..":
		return fmt.Errorf("%q: must be a file name", cutText(n))
	}
	return nil
}

// joins tells whether the container lives in a network namespace that exists already.
func (s *Spec) joins() bool {
	return len(s.Networks) > 0 && joins(s.Networks[0])
}

func joins(n netsetup.Request) bool { return n.Strategy == "netns" || n.Strategy == "container" }

func (s *Spec) checkNetworks() (errs []error) {
	alone := s.HostNet || s.NoNet
	for _, n := range s.Networks {
		if alone || joins(n) && len(s.Networks) > 1 {
			errs = append(errs, fmt.Errorf("%s: host, none, ns: and container: stand alone; leave the other networks out", n.Source))
			break
		}
	}
	for device, to := range s.OCI.Linux.NetDevices {
		if s.HostNet {
			errs = append(errs, errors.New("--net-device: not with --network host, which has all devices"))
			break
		}
		if err := netsetup.CheckNetDevice(device, cmp.Or(to.Name, device)); err != nil {
			errs = append(errs, fmt.Errorf("--net-device: %w", err))
		}
	}
	if s.HostNet && s.userns() {
		// The kernel lets a user namespace mount sysfs only for a network namespace of its own.
		errs = append(errs, errors.New("--userns: not with --network host"))
	}
	for key := range s.OCI.Linux.Sysctl {
		if s.HostNet && strings.HasPrefix(key, "net.") && key != pingSysctl {
			errs = append(errs, fmt.Errorf("--sysctl: %q: belongs to the host with --network host; set it there", key))
		}
	}
	return errs
}

// netDevices are the host's devices that are moved in, by name: the order of a map is none.
func (s *Spec) netDevices() (reqs []netsetup.Request) {
	for _, device := range slices.Sorted(maps.Keys(s.OCI.Linux.NetDevices)) {
		reqs = append(reqs, netsetup.Request{
			Strategy: "net-device", Device: device, IfName: cmp.Or(s.OCI.Linux.NetDevices[device].Name, device),
			Source: "--net-device " + device, Stays: s.joins(),
		})
	}
	return reqs
}

func (s *Spec) userns() bool { return len(s.OCI.Linux.UIDMappings) > 0 }

func (s *Spec) lsmConfig() lsm.Config {
	return lsm.Config{
		AppArmor:     s.OCI.Process.ApparmorProfile,
		ProcessLabel: s.OCI.Process.SelinuxLabel,
		MountLabel:   s.OCI.Linux.MountLabel,
	}
}
