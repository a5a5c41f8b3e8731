package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/netsetup"
)

// networkConfigDir is where CNI keeps its network configuration lists.
const networkConfigDir = "/etc/cni/net.d"

func runVerb() verb {
	return verb{
		name: "run", form: "[flags] [--] PROGRAM [ARGS...]", min: 1, max: -1, program: true,
		brief: "start a program in new namespaces, on a network of its own",
		about: runAbout, examples: runExamples, setup: setupRun,
	}
}

const runAbout = `PROGRAM runs in new mount, pid, net, ipc, uts and cgroup namespaces. Flags stand before it: what follows it belongs to it.

Without --rootfs it sees the host's files under a throwaway overlay: what it writes is gone at its end, and secrets such as /etc/shadow are hidden. That is a convenience for tools and tests, and no boundary for reading.

Without --network it has only the loopback interface.

In the foreground nsinit waits for the program, forwards signals to it and returns its exit code; nothing is left afterwards, and if nsinit is killed the program dies too. With --detach the id is printed, and the container stays until nsinit delete or nsinit gc.`

var runExamples = []example{
	{"nsinit run --network bridge -- ip addr", "the addresses of a container on the default network"},
	{"nsinit run -it --rootfs ./alpine -- sh", "a shell in an unpacked image"},
	{"nsinit run --network bridge:mtu=1400,interface_name=net0 -- ip link", "an interface with an MTU and a name of one's own"},
	{"nsinit run -d --name web --network bridge --netns-name web -- python3 -m http.server", "a server that is left running, with ip netns exec web ... at hand"},
	{"nsinit run -v ./src:/src:ro --tmpfs /tmp:size=64m,exec -w /src -- make test", "host files read-only, and a temporary directory"},
}

// A runRequest is what the flags of run ask.
type runRequest struct {
	program
	security securityOptions

	name, cgroupParent string
	rm, init           bool
	rlimits            []specs.POSIXRlimit
	sysctls            []sysctl

	rootfs            string
	readOnly, noPivot bool
	mounts            []specs.Mount
	shmSize           int64

	networks         []string
	netDevices       map[string]specs.LinuxNetDevice
	networkConfigDir string
	pluginDirs       []string
	netnsName        string
	noForwarding     bool
	dryRun           bool
	publish          []netsetup.PortMapping
	hostname         string
	dns              netsetup.DNS
	addHosts         []container.HostEntry

	userns           bool
	uidMaps, gidMaps []specs.LinuxIDMapping
}

// groups are the flags of run, bound to r.
func (r *runRequest) groups(caller lookup) []group {
	return []group{
		{"Program", r.program.flags(caller)},
		{"Container", r.containerFlags()},
		{"Files", r.fileFlags()},
		{"Network", r.networkFlags()},
		{"Security", append(r.program.securityFlags(), r.securityFlags()...)},
	}
}

func setupRun(a *app) ([]group, action) {
	r := &runRequest{networkConfigDir: networkConfigDir}
	return r.groups(a.lookupEnv), func(args []string) (int, error) {
		rt := a.runtime()
		spec, err := r.spec(args)
		if err != nil {
			return exitFailure, err
		}
		if r.dryRun {
			return 0, a.dryRun(rt.DryRun(context.Background(), spec))
		}
		code, err := rt.Run(context.Background(), spec)
		if err == nil && spec.Detach {
			err = a.printID(spec.ID)
		}
		return code, err
	}
}

// printID tells which container was started.
func (a *app) printID(id string) error {
	if a.json {
		return a.printJSON(struct {
			ID string `json:"id"`
		}{id})
	}
	return a.print(id + "\n")
}

// spec turns the flags into what the runtime understands. All its errors are
// faults of the command line.
func (r *runRequest) spec(args []string) (*container.Spec, error) {
	if args[0] == "" {
		return nil, usage("PROGRAM: empty")
	}
	if err := r.check(); err != nil {
		return nil, usage("%w", err)
	}
	s := container.Default(args)
	s.ID, s.NetnsName, s.CgroupParent = r.name, r.netnsName, r.cgroupParent
	s.User, s.Privileged, s.Init = r.user, r.privileged, r.init
	s.Detach, s.Interactive, s.PidFile = r.detach, r.interactive, r.pidFile
	s.NoForwarding, s.NoPivot, s.ShmSize = r.noForwarding, r.noPivot, r.shmSize
	s.DNS, s.AddHosts, s.Overlay = r.dns, r.addHosts, r.rootfs == ""
	s.OCI.Hostname = r.hostname
	s.OCI.Root = &specs.Root{Path: r.rootfs, Readonly: r.readOnly}
	s.OCI.Mounts = append(s.OCI.Mounts, r.mounts...)
	if err := r.setProcess(s.OCI.Process); err != nil {
		return nil, usage("%w", err)
	}
	r.setLinux(s.OCI.Linux)
	if err := r.setNetworks(s); err != nil {
		return nil, usage("%w", err)
	}
	return s, nil
}

// check finds what no flag can see by itself.
func (r *runRequest) check() error {
	if r.rm && r.detach {
		return errors.New("--rm: not with --detach: a detached container stays until nsinit delete; leave one of them out")
	}
	if len(r.uidMaps)+len(r.gidMaps) > 0 && !r.userns {
		return errors.New("--uidmap, --gidmap: without --userns; add it")
	}
	if err := checkIDMaps(r.uidMaps); err != nil {
		return fmt.Errorf("--uidmap: %w", err)
	}
	if err := checkIDMaps(r.gidMaps); err != nil {
		return fmt.Errorf("--gidmap: %w", err)
	}
	if err := checkDNS(r.dns); err != nil {
		return err
	}
	for _, m := range r.mounts {
		if m.Type != "bind" {
			continue
		}
		if err := checkVolume(m); err != nil {
			return fmt.Errorf("--volume: %w", err)
		}
	}
	return nil
}

func (r *runRequest) setProcess(p *specs.Process) error {
	caps, err := creds.Capabilities(r.capAdd, r.capDrop, r.privileged)
	if err != nil {
		return fmt.Errorf("--cap-add, --cap-drop: %w", err)
	}
	p.Capabilities = caps
	p.Terminal = r.tty
	p.Env = container.MergeEnv(p.Env, r.environment()...)
	if r.workdir != "" {
		p.Cwd = r.workdir
	}
	p.ApparmorProfile = r.security.apparmor
	p.SelinuxLabel, _ = r.security.labels()
	p.NoNewPrivileges = !r.privileged
	if r.security.noNewPrivs != nil {
		p.NoNewPrivileges = *r.security.noNewPrivs
	}
	if err := creds.CheckRlimits(r.rlimits); err != nil {
		return fmt.Errorf("--ulimit: %w", err)
	}
	p.Rlimits = mergeRlimits(p.Rlimits, r.rlimits)
	return nil
}

// mergeRlimits has a limit of the flags take the place of the default.
func mergeRlimits(limits, flags []specs.POSIXRlimit) []specs.POSIXRlimit {
	for _, f := range flags {
		limits = append(dropRlimit(limits, f.Type), f)
	}
	return limits
}

func dropRlimit(limits []specs.POSIXRlimit, kind string) []specs.POSIXRlimit {
	var kept []specs.POSIXRlimit
	for _, l := range limits {
		if l.Type != kind {
			kept = append(kept, l)
		}
	}
	return kept
}

func (r *runRequest) setLinux(l *specs.Linux) {
	_, l.MountLabel = r.security.labels()
	if l.Sysctl == nil {
		l.Sysctl = make(map[string]string, len(r.sysctls))
	}
	for _, s := range r.sysctls {
		l.Sysctl[s.key] = s.value
	}
	l.NetDevices = r.netDevices
	if r.userns {
		l.UIDMappings, l.GIDMappings = idMaps(r.uidMaps, r.gidMaps)
	}
}

// setNetworks reads the networks that --network names. host and none are no
// networks but the want of one, and stand alone.
func (r *runRequest) setNetworks(s *container.Spec) error {
	for _, value := range r.networks {
		req, err := netsetup.ParseFlag(value, []string{r.networkConfigDir})
		if err != nil {
			return fmt.Errorf("--network: %w", err)
		}
		req.Runtime.PluginDirs = r.pluginDirs
		switch req.Strategy {
		case "host":
			s.HostNet = true
		case "none":
			s.NoNet = true
		default:
			s.Networks = append(s.Networks, req)
		}
	}
	if (s.HostNet || s.NoNet) && len(r.networks) > 1 {
		return errors.New("--network: host and none stand alone; leave the other networks out")
	}
	var alone string
	if s.HostNet || s.NoNet {
		alone = "--network " + r.networks[0]
	}
	if err := r.setPublish(s.Networks, alone); err != nil {
		return fmt.Errorf("--publish: %w", err)
	}
	return nil
}

// checkRootfs wants a directory that isn't the host's own root.
func checkRootfs(p *string) func(string) error {
	return func(s string) error {
		if err := absolute(p)(s); err != nil {
			return err
		}
		st, err := os.Stat(*p)
		if err != nil {
			return fmt.Errorf("%s%w; unpack the image there first", where(s, *p), cause(err))
		}
		if !st.IsDir() {
			return fmt.Errorf("%sno directory; unpack the image into one", where(s, *p))
		}
		if host, err := os.Stat("/"); err == nil && os.SameFile(st, host) {
			return errors.New("the host's own root; leave --rootfs out for a throwaway copy of it")
		}
		return nil
	}
}

// where says which path a relative one has become.
func where(given, full string) string {
	if given == full {
		return ""
	}
	return quote(full) + ": "
}
