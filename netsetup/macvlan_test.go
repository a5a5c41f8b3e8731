package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// newCard gives host a network card: eth1, whose other end sw1 is what the cable
// leads to.
func newCard(t *testing.T, host *netsetuptest.Host) {
	t.Helper()
	host.Run(t, "sh", "-ec", `ip link add eth1 type veth peer name sw1
		ip link set eth1 up; ip link set sw1 up`).OK(t)
}

const pools9 = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
	"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`

// addrs9 are what IPAM gives container n of pools9.
func addrs9(n int) []netip.Prefix {
	return prefixes(fmt.Sprintf("10.9.0.%d/24", n), fmt.Sprintf("fd00:9::%x/64", n))
}

// wantTraffic has from reach the first two addresses of to by ICMP, TCP and UDP.
func wantTraffic(t *testing.T, from, to *netsetuptest.Node, addrs []netip.Prefix) {
	t.Helper()
	echo := to.Echo(t)
	for _, p := range addrs {
		if err := from.Ping(p.Addr(), 1400, netsetuptest.Patience/2); err != nil {
			t.Error(err)
		}
		for _, network := range []string{"tcp", "udp"} {
			if err := from.Exchange(network, netip.AddrPortFrom(p.Addr(), echo.Port), 1300, netsetuptest.Patience/2); err != nil {
				t.Error(err)
			}
		}
	}
}

// linkData is what `ip -d link` prints of a device.
func linkData(t *testing.T, n *netsetuptest.Node, name string) string {
	t.Helper()
	return n.Run(t, "ip", "-d", "link", "show", "dev", name).OK(t).Stdout
}

func wantParts(t *testing.T, s string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(s, part) {
			t.Errorf("%q lacks %q", s, part)
		}
	}
}

// skipWithout skips t if the kernel has no devices of a kind.
func skipWithout(t *testing.T, host *netsetuptest.Host, kind string) {
	t.Helper()
	if kind == "tap" {
		return // without it the tests fail, as they should
	}
	host.Run(t, "sh", "-ec", "ip link add probe0 type veth peer name probe1").OK(t)
	args := map[string]string{
		"ipvlan": "link probe0 name probe2 type ipvlan", "vlan": "link probe0 name probe2 type vlan id 7", "dummy": "name probe2 type dummy",
		"macvlan": "link probe0 name probe2 type macvlan", "vrf": "name probe2 type vrf table 9",
	}[kind]
	r := host.Run(t, "sh", "-c", "ip link add "+args)
	host.Run(t, "sh", "-c", "ip link del probe2 2>/dev/null; ip link del probe0").OK(t)
	if r.Code != 0 {
		t.Skipf("this kernel has no %s devices: %s", kind, strings.TrimSpace(r.Stderr))
	}
}

func TestMacvlan(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	host.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9").OK(t) // the host has an eth0 as well
	p := planOf(t, `{"type": "macvlan", "master": "eth1", "mtu": 1450, "bcqueuelen": 2000, `+pools9+`}`)
	c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
	a, b := c.start(t, host, p, addrs9(2)), d.start(t, host, p, addrs9(3))
	wantUsable(t, c.Node, "eth0", "10.9.0.3", "fd00:9::3")
	wantTraffic(t, c.Node, d.Node, b.Addresses)
	wantTraffic(t, d.Node, c.Node, a.Addresses)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a), d.check(t, host, b)), "[] []")

	eth := c.Link(t, "eth0")
	wantEqual(t, "MAC, MTU", fmt.Sprint(eth.Address, " ", eth.MTU), "0a:58:0a:09:00:02 1450")
	wantParts(t, linkData(t, c.Node, "eth0"), "eth0@if", "macvlan mode bridge bcqueuelen 2000 ")
	wantEqual(t, "arp_notify, ndisc_notify", sysctl(t, c.Node, "ipv4/conf/eth0/arp_notify")+sysctl(t, c.Node, "ipv6/conf/eth0/ndisc_notify"), "11")
	wantRoutes(t, c.Node, "eth0", "10.9.0.0/24 scope link", "default via 10.9.0.1", "default via fd00:9::1", "fd00:9::/64", "fe80::/64")
}

// TestMacvlanDefaults has no parent and no addresses.
func TestMacvlanDefaults(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planOf(t, `{"type": "macvlan"}`)
	_, err := c.attach(host, p, nil, noRecord)
	wantError(t, err, "lan.conflist: plugins[0].master: missing, and there is no default route on the host", "name the device")

	host.Outside(t)
	a := c.start(t, host, p, nil)
	wantEqual(t, "parent", fmt.Sprint(*a.Sublink), fmt.Sprint(Sublink{Parent: "to-outside", Mode: "bridge"}))
	wantEqual(t, "addresses", len(c.Link(t, "eth0").Addrs(4)), 0)
	wantParts(t, linkData(t, c.Node, "eth0"), "macvlan mode bridge bcqueuelen 1000 ")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
}

func TestMacvlanModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"bridge", "private", "vepa", "passthru"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			newCard(t, host)
			p := planOf(t, `{"type": "macvlan", "master": "eth1", "mode": "`+mode+`", `+pools9+`}`)
			c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
			card := host.Link(t, "eth1").Address
			a := c.start(t, host, p, addrs9(2))
			wantParts(t, linkData(t, c.Node, "eth0"), "macvlan mode "+mode+" ")
			wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
			if mode == "passthru" {
				wantEqual(t, "MAC", a.MAC, host.Link(t, "eth1").Address)
				wantEqual(t, "MAC", a.MAC, card)
				_, err := d.attach(host, p, addrs9(3), noRecord)
				wantError(t, err, "eth0: make: eth1 takes no macvlan: one in mode passthru shares it with no other")
				return
			}
			d.start(t, host, p, addrs9(3))
			// What the switch doesn't send back, private and vepa don't get.
			err := d.Ping(netip.MustParseAddr("10.9.0.2"), 56, 300*time.Millisecond)
			if (err == nil) != (mode == "bridge") {
				t.Errorf("ping: %v", err)
			}
			a.Sublink.Mode = "source"
			wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[eth0: mode: want source, the kernel has "+mode+"]")
		})
	}
}

// TestMacvlanInContainer stands on an interface that the container has already.
func TestMacvlanInContainer(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	p := planOf(t, `{"type": "macvlan", "linkInContainer": true, `+pools9+`}`, func(r *Request) { r.IfName = "net1" })
	a := c.start(t, host, p, addrs9(2))
	wantEqual(t, "parent", fmt.Sprint(*a.Sublink), fmt.Sprint(Sublink{Parent: "eth0", Inside: true, Mode: "bridge"}))
	wantParts(t, linkData(t, c.Node, "net1"), "net1@eth0")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")

	p = planOf(t, `{"type": "macvlan", "master": "eth7", "linkInContainer": true}`)
	_, err := c.attach(host, p, nil, noRecord)
	wantError(t, err, `lan.conflist: plugins[0].master: "eth7": no such device in the container`)
}

func TestMacvlanRefuses(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	host.Run(t, "ip", "link", "add", "br0", "type", "bridge").OK(t)
	c := newContainer(t, host, "web")
	try := func(keys string) error {
		_, err := c.attach(host, planOf(t, `{"type": "macvlan", `+keys+`}`), nil, noRecord)
		return err
	}
	wantError(t, try(`"master": "eth7"`), `lan.conflist: plugins[0].master: "eth7": no such device on the host; `+"`ip link`")
	wantError(t, try(`"master": "eth1", "mtu": 9000`), `lan.conflist: plugins[0].mtu: "9000": more than the 1500 of eth1; at most that`)
	if err := try(`"master": "eth1"`); err != nil {
		t.Error(err)
	}
	before := fmt.Sprint(netsetuptest.Names(host.Links(t)))
	wantError(t, try(`"master": "eth1"`), "eth0: make: the container's network namespace has an interface of this name already; give another interface_name")
	c.Run(t, "ip", "link", "del", "eth0").OK(t)
	host.Run(t, "ip", "link", "set", "eth1", "master", "br0").OK(t)
	wantError(t, try(`"master": "eth1"`), "eth0: make: eth1 is a port of a bridge or bond")
	host.Run(t, "ip", "link", "set", "eth1", "nomaster").OK(t)
	wantEqual(t, "devices", fmt.Sprint(netsetuptest.Names(host.Links(t))), before)
}

// TestMacvlanParentDown makes the device and says what is wrong.
func TestMacvlanParentDown(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	host.Run(t, "ip", "link", "set", "eth1", "down").OK(t)
	c := newContainer(t, host, "web")
	var warned string
	err := host.DoInside(func() error {
		h, err := OpenHost(func(line string) { warned = line })
		if err != nil {
			return err
		}
		defer h.Close()
		_, err = Attach(context.Background(), h, c.ns, planOf(t, `{"type": "macvlan", "master": "eth1"}`), nil, nil, noRecord)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	wantEqual(t, "warning", warned, "lan: eth0 stands on eth1, which is down: nothing passes until `ip link set eth1 up`")
}

// TestMacvlanAnnounces has the switch hear of the addresses without anybody asking.
func TestMacvlanAnnounces(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	frames := listen(t, host.Node, "sw1")
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, `{"type": "macvlan", "master": "eth1", `+pools9+`}`), addrs9(2))
	heard := frames(func(heard string) bool {
		return strings.Contains(heard, "ARP 10.9.0.2") && strings.Contains(heard, "NA fd00:9::2")
	})
	wantParts(t, heard, "ARP 10.9.0.2 is-at 0a:58:0a:09:00:02", "NA fd00:9::2")
}
