package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// soon is how long something on a network of veths may take. An emulated machine gets more by Patience.
func soon() time.Duration { return max(time.Second, netsetuptest.Patience/20) }

// never is how long is waited for what must not arrive.
const never = 150 * time.Millisecond

// addrs are the addresses of an interface inside, as the state has them.
func (c *container) addrs(t testing.TB) (v4, v6 netip.Addr) {
	t.Helper()
	for _, n := range c.state(t).Networks {
		for _, a := range n.Addresses {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				t.Fatal(err)
			}
			if p.Addr().Is4() && !v4.IsValid() {
				v4 = p.Addr()
			}
			if p.Addr().Is6() && !v6.IsValid() {
				v6 = p.Addr()
			}
		}
	}
	if !v4.IsValid() || !v6.IsValid() {
		t.Fatalf("%s: addresses %v and %v, want both families", c.id, v4, v6)
	}
	return v4, v6
}

// reaches tries ICMP, TCP and UDP, of any size up to the MTU, from one node to an address of another that has an echo.
func reaches(from *netsetuptest.Node, to netip.Addr, echo *netsetuptest.Echo, mtu int) error {
	header := 28 // IPv4 and UDP or ICMP
	if to.Is6() {
		header = 48
	}
	for _, size := range []int{0, mtu - header} {
		if err := from.Ping(to, size, soon()); err != nil {
			return err
		}
	}
	at := netip.AddrPortFrom(to, echo.Port)
	if err := from.Exchange("tcp", at, 1<<20, 5*soon()); err != nil {
		return err
	}
	return from.Exchange("udp", at, mtu-header, soon())
}

// silent wants nothing to get through.
func silent(from *netsetuptest.Node, to netip.Addr, echo *netsetuptest.Echo) error {
	if err := from.Ping(to, 0, never); err == nil {
		return fmt.Errorf("%s reaches %v by ICMP", from.Name, to)
	}
	for _, network := range []string{"tcp", "udp"} {
		if err := from.Exchange(network, netip.AddrPortFrom(to, echo.Port), 1, never); err == nil {
			return fmt.Errorf("%s reaches %v by %s", from.Name, to, network)
		}
	}
	return nil
}

func TestBridgeAddressesAndRoutes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	links := netsetuptest.Decode[[]netsetuptest.Link](t, m.run(t, "--network", "bridge", "--", "ip", "-d", "-j", "addr").OK(t))
	if names := netsetuptest.Names(links); !slices.Equal(names, []string{"lo", "eth0"}) {
		t.Fatalf("interfaces %v", names)
	}
	lo, eth := links[0], links[1]
	if !lo.Up() || !slices.ContainsFunc(lo.AddrInfo, func(a netsetuptest.Addr) bool { return a.Local.String() == "127.0.0.1" }) ||
		!slices.ContainsFunc(lo.AddrInfo, func(a netsetuptest.Addr) bool { return a.Local.String() == "::1" }) {
		t.Errorf("lo: %+v", lo)
	}
	if !eth.Up() || eth.OperState != "UP" || eth.MTU != 1500 || eth.NumTxQueues != 1 || eth.NumRxQueues != 1 {
		t.Errorf("eth0: %+v", eth)
	}
	eth.Addr(t, 4)
	eth.Addr(t, 6)
	for _, a := range eth.AddrInfo {
		if a.Tentative || a.DADFailed {
			t.Errorf("eth0: %v is tentative", a.Local)
		}
	}
	for _, family := range []string{"-4", "-6"} {
		routes := netsetuptest.Decode[[]netsetuptest.Route](t, m.run(t, "--network", "bridge", "--", "ip", family, "-j", "route").OK(t))
		def := netsetuptest.FindRoute(routes, "default")
		if len(def) != 1 || def[0].Dev != "eth0" || def[0].Gateway == "" {
			t.Errorf("%s: default routes %v", family, def)
		}
	}
}

// The very first packet gets its answer, of either family.
func TestFirstPacketIsAnswered(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, family := range []string{"-4", "-6"} {
		text := fmt.Sprintf("ping %[1]s -c 1 -W 1 $(ip %[1]s route show default | awk '{print $3; exit}')", family)
		m.run(t, with([]string{"--network", "bridge"}, script(text))...).OK(t)
	}
}

func TestTwoContainersReachEachOther(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	a, b := m.detached(t, "a", "--network", "bridge", "sleep", "60"), m.detached(t, "b", "--network", "bridge", "sleep", "60")
	from, to := a.node(t), b.node(t)
	echo := to.Echo(t)
	v4, v6 := b.addrs(t)
	for _, addr := range []netip.Addr{v4, v6} {
		for _, n := range []*netsetuptest.Node{from, m.Node} {
			if err := reaches(n, addr, echo, 1500); err != nil {
				t.Error(err)
			}
		}
	}
	a4, a6 := a.addrs(t)
	for _, seen := range []netip.Addr{a4, a6} {
		if !slices.Contains(echo.Seen(), seen) {
			t.Errorf("b saw %v, not a's %v", echo.Seen(), seen)
		}
	}
	if err := from.Exchange("udp", netip.AddrPortFrom(v4, echo.Port), 1473, soon()); err == nil {
		t.Error("a datagram larger than the MTU arrived unfragmented")
	}
}

// The host's side of the bridge is the gateway, and its services can be reached.
func TestContainerReachesHost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	echo := m.Echo(t)
	for _, r := range netsetuptest.FindRoute(c.node(t).Routes(t), "default") {
		gw, err := netip.ParseAddr(r.Gateway)
		if err != nil {
			t.Fatal(err)
		}
		if err := reaches(c.node(t), gw, echo, 1500); err != nil {
			t.Error(err)
		}
	}
}

// Masqueraded: the outside has no route back, and sees the host's address.
func TestContainerReachesOutside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out := m.Outside(t)
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	echo := out.Echo(t)
	for _, addr := range []netip.Addr{out.V4, out.V6, netsetuptest.BeyondV4, netsetuptest.BeyondV6} {
		if err := reaches(c.node(t), addr, echo, 1500); err != nil {
			t.Error(err)
		}
	}
	seen := echo.Seen()
	slices.SortFunc(seen, netip.Addr.Compare)
	if want := []netip.Addr{out.HostV4, out.HostV6}; !slices.Equal(seen, want) {
		t.Errorf("outside saw %v, want the host's %v", seen, want)
	}
}

// Nobody from outside gets in by himself, and forwarding for the container makes the host no router for others.
func TestOutsideReachesNothing(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	out, near := m.Outside(t), m.Peer(t, "near")
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	v4, v6 := c.addrs(t)
	inside, beside := c.node(t).Echo(t), near.Echo(t)
	// Both know a way to each other and to the container: by the host.
	for _, p := range []*netsetuptest.Peer{out, near} {
		p.Run(t, "ip", "-4", "route", "replace", "default", "via", p.HostV4.String()).OK(t)
		p.Run(t, "ip", "-6", "route", "replace", "default", "via", p.HostV6.String()).OK(t)
	}
	for _, addr := range []netip.Addr{near.V4, near.V6} {
		if err := silent(out.Node, addr, beside); err != nil {
			t.Errorf("the host routes for others: %v", err)
		}
	}
	for _, addr := range []netip.Addr{v4, v6} {
		if err := silent(out.Node, addr, inside); err != nil {
			t.Errorf("the container is open to the outside: %v", err)
		}
	}
	if seen := inside.Seen(); len(seen) != 0 {
		t.Errorf("the container saw %v", seen)
	}
}

func TestContainersWithoutNetworkReachNobody(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	out := m.Outside(t)
	a, b := m.detached(t, "a", "sleep", "60"), m.detached(t, "b", "--network", "bridge", "sleep", "60")
	inside, outside := b.node(t).Echo(t), out.Echo(t)
	v4, v6 := b.addrs(t)
	for addr, echo := range map[netip.Addr]*netsetuptest.Echo{v4: inside, v6: inside, out.V4: outside, out.V6: outside} {
		if err := silent(a.node(t), addr, echo); err != nil {
			t.Error(err)
		}
	}
	if err := a.node(t).Ping(netip.MustParseAddr("127.0.0.1"), 0, soon()); err != nil {
		t.Error(err)
	}
}

// lan writes a network of its own and returns its path.
func lan(t testing.TB, name, bridge, subnets string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".conflist")
	routes := `{"dst": "0.0.0.0/0"}`
	if strings.Contains(subnets, "::/") {
		routes += `, {"dst": "::/0"}`
	}
	write(t, path, fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [{"type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "ranges": [%s], "routes": [%s]}}]}`, name, bridge, subnets, routes))
	return path
}

// Two networks are two links: who looks for a neighbour there finds none. (By way of the host they reach each other, as
// podman's do.)
func TestSeparateNetworksAreSeparate(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	one := lan(t, "one", "br-one", `[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd71::/64"}]`)
	two := lan(t, "two", "br-two", `[{"subnet": "10.72.0.0/24"}], [{"subnet": "fd72::/64"}]`)
	a := m.detached(t, "a", "--network", one, "sleep", "60")
	b := m.detached(t, "b", "--network", two, "sleep", "60")
	echo := b.node(t).Echo(t)
	v4, v6 := b.addrs(t)
	for _, addr := range []netip.Addr{v4, v6} {
		a.node(t).Run(t, "ip", "route", "add", addr.String(), "dev", "eth0").OK(t)
		if err := silent(a.node(t), addr, echo); err != nil {
			t.Error(err)
		}
	}
}

func TestSeveralInterfaces(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	one := lan(t, "one", "br-one", `[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd71::/64"}]`)
	two := lan(t, "two", "br-two", `[{"subnet": "10.72.0.0/24"}]`)
	r := m.run(t, "--network", "bridge", "--network", one, "--network", two, "--", "ip", "-d", "-j", "addr").OK(t)
	links := netsetuptest.Decode[[]netsetuptest.Link](t, r)
	if names := netsetuptest.Names(links); !slices.Equal(names, []string{"lo", "eth0", "eth1", "eth2"}) {
		t.Fatalf("interfaces %v", names)
	}
	if got := links[2].Addr(t, 4).String(); got != "10.71.0.2/24" {
		t.Errorf("eth1: %s", got)
	}
	if got := links[2].Addr(t, 6).String(); got != "fd71::2/64" {
		t.Errorf("eth1: %s", got)
	}
	if got := links[3].Addr(t, 4).String(); got != "10.72.0.2/24" || len(links[3].AddrInfo) != 1 {
		t.Errorf("eth2: %v, want one IPv4 address and no IPv6", links[3].AddrInfo)
	}
	routes := netsetuptest.Decode[[]netsetuptest.Route](t, m.run(t, "--network", "bridge", "--network", one, "--", "ip", "-4", "-j", "route").OK(t))
	def := netsetuptest.FindRoute(routes, "default")
	slices.SortFunc(def, func(a, b netsetuptest.Route) int { return a.Metric - b.Metric })
	if len(def) == 0 || def[0].Dev != "eth0" || len(def) > 1 && def[0].Metric == def[1].Metric {
		t.Errorf("default routes %v, want the first network's before all others", def)
	}
}

func TestAddressesAsAsked(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd71::/64"}]`)
	spec := path + ":ip=10.71.0.77/24,ip=fd71::77/64,gateway=10.71.0.1,mac=02:00:00:00:00:77,mtu=1400,interface_name=lan0"
	r := m.run(t, with([]string{"--network", spec}, script("ip -d -j addr; ip -j route"))...).OK(t)
	addr, route, _ := strings.Cut(r.Stdout, "\n")
	links, err := decode[[]netsetuptest.Link](addr)
	if err != nil {
		t.Fatal(err)
	}
	l := netsetuptest.FindLink(t, links, "lan0")
	if l.Addr(t, 4).String() != "10.71.0.77/24" || l.Addr(t, 6).String() != "fd71::77/64" || l.Address != "02:00:00:00:00:77" || l.MTU != 1400 {
		t.Errorf("lan0: %+v", l)
	}
	routes, err := decode[[]netsetuptest.Route](route)
	if def := netsetuptest.FindRoute(routes, "default"); err != nil || len(def) != 1 || def[0].Gateway != "10.71.0.1" {
		t.Errorf("default routes %v, %v", def, err)
	}
}

// Two containers never share an address, and one that is gone gives its address back.
func TestLeases(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/29"}]`) // .2 to .6
	taken := map[string]bool{}
	for i := range 5 {
		c := m.detached(t, fmt.Sprint("c", i), "--network", path, "sleep", "60")
		a := c.node(t).Link(t, "eth0").Addr(t, 4).String()
		if taken[a] {
			t.Errorf("%s was given twice", a)
		}
		taken[a] = true
	}
	r := m.run(t, "--network", path, "true").Want(t, 125)
	if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "10.71.0.0/29") {
		t.Errorf("%v: stderr %q, want the subnet", err, r.Stderr)
	}
	m.nsinit(t, "delete", "--force", "c3").OK(t)
	m.run(t, "--network", path, "true").OK(t)
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	hosts := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, hosts, "search example.test\nnameserver 198.51.100.2\nnameserver 2001:db8:1::2\noptions ndots:2\n")
	m.Run(t, "mount", "--bind", hosts, "/etc/resolv.conf").OK(t)
	got := m.run(t, "--rootfs", newRootfs(t), "--network", "bridge", "cat", "/etc/resolv.conf").OK(t).Stdout
	for _, want := range []string{"search example.test\n", "nameserver 198.51.100.2\n", "nameserver 2001:db8:1::2\n", "ndots:2\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("resolv.conf: %q, want %q", got, want)
		}
	}
	m.Run(t, "umount", "/etc/resolv.conf").OK(t)
}

func TestHostsFile(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	got := m.run(t, with([]string{"--rootfs", newRootfs(t), "--network", "bridge", "--hostname", "web"}, script("cat /etc/hosts; ip -o addr show eth0"))...).OK(t).Stdout
	for line := range strings.Lines(got) {
		f := strings.Fields(line)
		if len(f) > 3 && (f[2] == "inet" || f[2] == "inet6" && strings.Contains(line, "global")) {
			addr, _, _ := strings.Cut(f[3], "/")
			if !strings.Contains(got, addr+"\tweb\n") {
				t.Errorf("hosts lacks %s:\n%s", addr, got)
			}
		}
	}
}
