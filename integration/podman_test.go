package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// podmanConf has podman keep to the test's machine: its networks and locks, and nothing of cgroups, AppArmor or a journal,
// of which there is one for all. The plugins are what the document says.
const podmanConf = `%snetwork_config_dir = %q
[containers]
cgroups = "disabled"
apparmor_profile = "unconfined"
log_driver = "k8s-file"
[engine]
runtime = "crun"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
`

type podman struct {
	*machine
	dir  string // its configuration and networks
	root string // its containers'
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skipf("needs podman 4 with its CNI backend, which hack/setup installs: %v", err)
	}
	p := &podman{newMachine(t), t.TempDir(), newRootfs(t)}
	install, network := documented(t, "sh"), documented(t, "toml")
	p.nsinit(t, strings.Fields(install)[1:]...).OK(t)
	write(t, filepath.Join(p.dir, "containers.conf"), fmt.Sprintf(podmanConf, network, filepath.Join(p.dir, "networks")))
	return p
}

// documented is the block of a language in what the document says of podman.
func documented(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, _ := strings.Cut(string(page), "\n## podman\n")
	_, block, found := strings.Cut(chapter, "```"+language+"\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("the document has no %s of podman's", language)
	}
	return block
}

func (p *podman) podman(t *testing.T, args ...string) netsetuptest.Result {
	t.Helper()
	cmd := p.Command(append([]string{"podman", "--storage-driver", "vfs"}, args...)...)
	cmd.Env = append(cmd.Env, "CONTAINERS_CONF="+filepath.Join(p.dir, "containers.conf"))
	return p.RunCmd(t, cmd)
}

// up starts a container that stays, and returns its network.
func (p *podman) up(t *testing.T, name string, args ...string) *netsetuptest.Node {
	t.Helper()
	file := filepath.Join(p.dir, name+".pid")
	p.podman(t, with([]string{"run", "-d", "--name", name, "--pidfile", file}, args, []string{"--rootfs", p.root, "sleep", "600"})...).OK(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return p.Container(t, pid)
}

// down removes containers, running or not.
func (p *podman) down(t *testing.T, names ...string) {
	t.Helper()
	p.podman(t, with([]string{"rm", "-f", "-t", "0"}, names)...).OK(t)
}

// lan is a network of both families.
func (p *podman) lan(t *testing.T, name string, subnet int, args ...string) {
	t.Helper()
	v4, v6 := fmt.Sprintf("10.%d.0.0/24", subnet), fmt.Sprintf("fd%d::/64", subnet)
	p.podman(t, with([]string{"network", "create", "--ipv6", "--subnet", v4, "--subnet", v6}, args, []string{name})...).OK(t)
}

// told are the addresses of a container in a network, as podman tells them.
type told struct {
	IPAddress, GlobalIPv6Address, Gateway, IPv6Gateway, MacAddress string
	IPPrefixLen, GlobalIPv6PrefixLen                               int
}

func (p *podman) told(t *testing.T, name, network string) told {
	t.Helper()
	r := p.podman(t, "inspect", "--format", `{{json .NetworkSettings.Networks}}`, name).OK(t)
	return netsetuptest.Decode[map[string]told](t, r)[network]
}

// attached wants an interface inside to be as podman tells it, and its other end on a bridge.
func (p *podman) attached(t *testing.T, in *netsetuptest.Node, ifName, bridge string, told told) {
	t.Helper()
	link := in.Link(t, ifName)
	v4, v6 := fmt.Sprintf("%s/%d", told.IPAddress, told.IPPrefixLen), fmt.Sprintf("%s/%d", told.GlobalIPv6Address, told.GlobalIPv6PrefixLen)
	if !link.Up() || link.Address != told.MacAddress || link.Addr(t, 4).String() != v4 || link.Addr(t, 6).String() != v6 {
		t.Errorf("%s: %+v, podman tells %+v", ifName, link, told)
	}
	gateways := p.Link(t, bridge)
	if gateways.Addr(t, 4).Addr().String() != told.Gateway || gateways.Addr(t, 6).Addr().String() != told.IPv6Gateway || !gateways.Up() {
		t.Errorf("%s: %+v, podman tells %+v", bridge, gateways, told)
	}
	routes := fmt.Sprint(netsetuptest.FindRoute(in.Routes(t), "default"))
	for _, gateway := range []string{told.Gateway, told.IPv6Gateway} {
		if !strings.Contains(routes, "via "+gateway+" dev "+ifName) {
			t.Errorf("default routes %s, podman tells %+v", routes, told)
		}
	}
	ports := netsetuptest.Decode[[]struct {
		Master, State string
		Hairpin       bool
	}](t, p.Run(t, "bridge", "-d", "-j", "link", "show", "master", bridge).OK(t))
	for _, port := range ports {
		if port.State != "forwarding" || !port.Hairpin {
			t.Errorf("port of %s: %+v", bridge, port)
		}
	}
}

// podmanStays are what a network leaves on the host once podman has removed it, until gc --all.
var podmanStays = []string{
	"nft table inet nsinit", "sysctl net/ipv4/conf/to-outside/forwarding", "sysctl net/ipv6/conf/to-outside/force_forwarding",
	"file /run/nsinit/network-objects", "file /var/lib/nsinit/", "file /var/lib/cni", // the empty folders, and where host-local was
	"mount /run/netns", // podman's
}

// gone wants nothing of containers and networks on the host but that.
func (p *podman) gone(t *testing.T, first netsetuptest.Snapshot) (now netsetuptest.Snapshot) {
	t.Helper()
	now = p.Settled(t)
	if d := netsetuptest.Diff(first.Without(podmanStays...), now.Without(podmanStays...)); d != "" {
		t.Errorf("left:\n%s", d)
	}
	for _, text := range []string{"10.77.", "fd77:", "/var/lib/cni/results/"} {
		if left := now.Grep(text); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
	return now
}

// Containers on a network that podman makes, publishes for, and removes: twice, since the second bridge of the name is
// another one.
func TestPodman(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	out := p.Outside(t)
	first := p.Settled(t)
	p.round(t, out)
	before := p.gone(t, first)
	p.round(t, out)
	p.Await(t, before)
	p.nsinit(t, "gc", "--all").OK(t)
	stays := []string{"file ", "mount /run/netns"}
	if d := netsetuptest.Diff(first.Without(stays...), p.Settled(t).Without(stays...)); d != "" {
		t.Errorf("left by gc --all:\n%s", d)
	}
}

func (p *podman) round(t *testing.T, out *netsetuptest.Peer) {
	t.Helper()
	p.lan(t, "lan", 77)
	web := p.up(t, "web", "--network", "lan", "-p", "8080:7", "-p", "8080:7/udp", "-p", out.HostV4.String()+":9000-9002:5-7")
	db := p.up(t, "db", "--network", "lan", "--ip", "10.77.0.50", "--ip6", "fd77::50", "--mac-address", "02:00:00:00:00:07")
	p.attached(t, web, "eth0", "cni-podman1", p.told(t, "web", "lan"))
	told := p.told(t, "db", "lan")
	p.attached(t, db, "eth0", "cni-podman1", told)
	if told.IPAddress != "10.77.0.50" || told.GlobalIPv6Address != "fd77::50" || told.MacAddress != "02:00:00:00:00:07" {
		t.Errorf("what was asked for db: %+v", told)
	}
	p.carries(t, web, db, out)
	p.down(t, "web", "db")
	p.podman(t, "network", "rm", "lan").OK(t)
}

// carries has traffic of all kinds between two containers, the host, and others.
func (p *podman) carries(t *testing.T, web, db *netsetuptest.Node, out *netsetuptest.Peer) {
	t.Helper()
	inside, outside, host := web.EchoOn(t, 7), out.Echo(t), p.Echo(t)
	link, gateways := web.Link(t, "eth0"), p.Link(t, "cni-podman1")
	for _, family := range []int{4, 6} {
		far, hostAddr := netsetuptest.BeyondV4, out.HostV4
		if family == 6 {
			far, hostAddr = netsetuptest.BeyondV6, out.HostV6
		}
		for _, err := range []error{
			reaches(db, link.Addr(t, family).Addr(), inside, 1500),
			reaches(p.Node, link.Addr(t, family).Addr(), inside, 1500),
			reaches(web, gateways.Addr(t, family).Addr(), host, 1500),
			reaches(web, far, outside, 1500),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		for _, from := range []*netsetuptest.Node{out.Node, p.Node, db, web} {
			if err := published(from, 8080, hostAddr); err != nil {
				t.Error(err)
			}
		}
	}
	if seen := outside.Seen(); !slices.Equal(seen, []netip.Addr{out.HostV4, out.HostV6}) {
		t.Errorf("the outside was asked by %v, want the host alone", seen)
	}
	if err := out.Exchange("tcp", netip.AddrPortFrom(out.HostV4, 9002), 500, soon()); err != nil {
		t.Error(err)
	}
}

// The network that podman has from the start, and two in one container, which both publish its ports.
func TestPodmanNetworks(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	out := p.Outside(t)
	first := p.Settled(t)
	p.lan(t, "lan", 77)
	p.lan(t, "back", 78)
	web := p.up(t, "web", "-p", "8080:7", "-p", "8080:7/udp")
	both := p.up(t, "both", "--network", "lan", "--network", "back", "-p", "8081:7", "-p", "8081:7/udp")
	web.EchoOn(t, 7)
	both.EchoOn(t, 7)
	if address := web.Link(t, "eth0").Addr(t, 4).String(); p.Link(t, "cni-podman0").Addr(t, 4).String() != "10.88.0.1/16" || address != "10.88.0.2/16" {
		t.Errorf("podman's own network: %s", address)
	}
	names := netsetuptest.Names(both.Links(t)) // in podman's order, which is chance
	if slices.Sort(names); !slices.Equal(names, []string{"eth0", "eth1", "lo"}) {
		t.Errorf("the container on both has %q", names)
	}
	for _, err := range []error{
		web.Ping(netsetuptest.BeyondV4, 0, soon()), both.Ping(netsetuptest.BeyondV4, 0, soon()), both.Ping(netsetuptest.BeyondV6, 0, soon()),
		published(out.Node, 8080, out.HostV4), published(out.Node, 8081, out.HostV4, out.HostV6),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	p.down(t, "web", "both")
	p.podman(t, "network", "rm", "lan", "back").OK(t)
	p.Run(t, "ip", "link", "del", "cni-podman0").OK(t) // which stays: podman's own can't be removed
	p.gone(t, first)
	p.nsinit(t, "gc", "--all").OK(t)
}

// A running container is put on a second network, and taken off it.
func TestPodmanConnect(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	out := p.Outside(t)
	p.lan(t, "lan", 77)
	p.lan(t, "back", 78)
	p.podman(t, "run", "--rm", "--network", "back", "-p", "8080:7", "--rootfs", p.root, "true").OK(t) // opens its bridge to the loopback
	web, db := p.up(t, "web", "--network", "lan", "-p", "8080:7"), p.up(t, "db", "--network", "back")
	before := p.Snapshot(t)
	web.EchoOn(t, 7)
	published := func() {
		t.Helper()
		if err := out.Exchange("tcp", netip.AddrPortFrom(out.HostV4, 8080), 500, soon()); err != nil {
			t.Error(err)
		}
	}
	echo, there := db.Echo(t), db.Link(t, "eth0")
	inside := web.NetworkSnapshot(t)
	for range 2 {
		p.podman(t, "network", "connect", "--ip", "10.78.0.9", "--alias", "front", "back", "web").OK(t)
		told := p.told(t, "web", "back")
		p.attached(t, web, "eth1", "cni-podman2", told)
		if told.IPAddress != "10.78.0.9" {
			t.Errorf("what was asked for: %+v", told)
		}
		for _, family := range []int{4, 6} {
			if err := reaches(web, there.Addr(t, family).Addr(), echo, 1500); err != nil {
				t.Error(err)
			}
		}
		published()
		p.podman(t, "network", "disconnect", "back", "web").OK(t)
		p.Await(t, before)
		published()
		if d := netsetuptest.Diff(inside, web.NetworkSnapshot(t)); d != "" {
			t.Errorf("left inside:\n%s", d)
		}
	}
	p.Run(t, "nft", "flush", "ruleset").OK(t)
	p.podman(t, "network", "reload", "web").OK(t)
	published()
	p.podman(t, "network", "disconnect", "lan", "web").OK(t)
	if names := netsetuptest.Names(web.Links(t)); !slices.Equal(names, []string{"lo"}) {
		t.Errorf("inside are %q", names)
	}
	p.down(t, "web", "db")
	p.podman(t, "network", "rm", "lan", "back").OK(t)
	p.nsinit(t, "gc", "--all").OK(t)
}

// A port that is busy is told by whom, and the container is not left half attached.
func TestPodmanBusyPort(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	p.Outside(t)
	p.lan(t, "lan", 77)
	p.up(t, "web", "--network", "lan", "-p", "8080:80")
	server := p.Start(t, p.Command("nc", "-l", "-k", "9090"))
	before := p.Snapshot(t).Without("process ")
	for port, want := range map[string]string{
		"8080": `plugin portmap failed: host port *:8080/tcp: container "`, // nsinit knows whose it is
		"9090": "listen tcp4 :9090: bind: address already in use",          // podman itself listens, as soon as the network is there
	} {
		r := p.podman(t, "run", "--name", "late", "--network", "lan", "-p", port+":80", "--rootfs", p.root, "true")
		if r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		p.down(t, "late")
		if d := netsetuptest.Diff(before, p.Snapshot(t).Without("process ")); d != "" {
			t.Errorf("left:\n%s", d)
		}
	}
	server.Signal(t, syscall.SIGKILL)
	server.Wait(t)
	p.down(t, "web")
	p.podman(t, "network", "rm", "lan").OK(t)
	p.nsinit(t, "gc", "--all").OK(t)
}
