package main

import (
	"path/filepath"
	"strings"
)

// The subjects that the targets speak of.
const (
	floorName  = "floor"
	nsinitName = "nsinit bridge"
	crunName   = "crun, empty netns"
	cniName    = "crun + cni bridge"

	nsinitChain    = "chain0"
	nsinitChainRun = "nsinit chain"
	cniChainName   = "crun + cni chain"
)

// A subject is one way to do the job.
type subject struct {
	name string
	argv []string
	env  []string // in addition to ours
}

// script is a subject that takes several programs: what dash does with the lines.
func script(name string, lines ...string) subject {
	return subject{name: name, argv: []string{"sh", "-ec", strings.Join(lines, "\n")}}
}

// subjects lists who runs, those of one kind together.
func (h *host) subjects() []subject {
	all := []subject{
		{name: floorName, argv: []string{filepath.Join(h.bin, "floor"), "-n", bridge, h.root, "/bin/true"}},
		{name: "floor without netns", argv: []string{filepath.Join(h.bin, "floor"), h.root, "/bin/true"}},
		{name: nsinitName, argv: h.run("--network", "bridge", "--rootfs", h.root, "true")},
		{name: nsinitChainRun, argv: h.run("--network", filepath.Join(h.work, "net.d", nsinitChain+".conflist"), "-p", "18080:80", "--rootfs", h.root, "true")},
		{name: "nsinit none", argv: h.run("--network", "none", "--rootfs", h.root, "true")},
		{name: "nsinit bridge, host's root", argv: h.run("--network", "bridge", "true")},
		h.shell(),
		{name: "bwrap, empty netns", argv: []string{
			"bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
			"--bind", h.root, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true",
		}},
	}
	for _, runtime := range runtimes() {
		all = append(all,
			subject{name: runtime + ", empty netns", argv: []string{runtime, "run", "--bundle", h.bundle("empty"), "bench"}},
			h.withCNI(runtime, "bridge", "bench"))
	}
	if len(runtimes()) > 0 {
		chain := h.withCNI(runtimes()[0], "chain", "chain")
		chain.env = append(chain.env, `CAP_ARGS={"portMappings":[{"hostPort":18081,"containerPort":80,"protocol":"tcp"}]}`)
		all = append(all, chain)
	}
	return all
}

func (h *host) run(args ...string) []string { return append([]string{h.nsinit(), "run"}, args...) }

// shell does the job with ip and unshare, as a person would write it down.
func (h *host) shell() subject {
	return script("shell: ip, unshare",
		"ip netns add bench-sh",
		"ip link add bench-sh master "+bridge+" type veth peer name eth0 netns bench-sh",
		"ip link set bench-sh up",
		"ip -n bench-sh link set lo up",
		"ip -n bench-sh addr add 10.87.0.3/16 dev eth0",
		"ip -n bench-sh link set eth0 up",
		"ip -n bench-sh route add default via "+gateway,
		"ip netns exec bench-sh unshare --mount --pid --ipc --uts --fork --root="+h.root+" --mount-proc /bin/true",
		"ip link del bench-sh", // with the namespace it would go later, and its name be taken in the next round
		"ip netns del bench-sh")
}

// withCNI is how runtimes are used where there is no engine: a namespace by name,
// the reference plugins through cnitool, a bundle that joins.
func (h *host) withCNI(runtime, what, network string) subject {
	s := script(runtime+" + cni "+what,
		"ip netns add bench-cni",
		h.cni("cnitool")+" add "+network+" "+cniNetNS+" >/dev/null",
		runtime+" run --bundle "+h.bundle("cni")+" bench",
		h.cni("cnitool")+" del "+network+" "+cniNetNS,
		"ip netns del bench-cni")
	s.env = []string{"CNI_PATH=" + filepath.Join(h.bin, "cni"), "NETCONFPATH=" + filepath.Join(h.work, "net.d")}
	return s
}
