package netsetup

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestIpvlan(t *testing.T) {
	t.Parallel()
	for _, mode := range ipvlanModes() {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			skipWithout(t, host, "ipvlan")
			newCard(t, host)
			host.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9").OK(t)
			p := planOf(t, `{"type": "ipvlan", "master": "eth1", "mode": "`+mode+`", "mtu": 1450, `+pools9+`}`)
			c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
			a, b := c.start(t, host, p, addrs9(2)), d.start(t, host, p, addrs9(3))
			wantTraffic(t, c.Node, d.Node, b.Addresses)
			wantTraffic(t, d.Node, c.Node, a.Addresses)
			wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a), d.check(t, host, b)), "[] []")
			eth := c.Link(t, "eth0")
			wantEqual(t, "MAC, MTU", fmt.Sprint(eth.Address, " ", eth.MTU), host.Link(t, "eth1").Address+" 1450")
			wantEqual(t, "MAC", a.MAC, eth.Address)
			wantParts(t, linkData(t, c.Node, "eth0"), "eth0@if", "ipvlan  mode "+mode+" bridge ")
			wantEqual(t, "arp_notify, ndisc_notify", sysctl(t, c.Node, "ipv4/conf/eth0/arp_notify")+sysctl(t, c.Node, "ipv6/conf/eth0/ndisc_notify"), "11")
			wantRoutes(t, c.Node, "eth0", "10.9.0.0/24 scope link", "default via 10.9.0.1", "default via fd00:9::1", "fd00:9::/64", "fe80::/64")
		})
	}
}

// TestIpvlanChained takes device and addresses of the plugin before it in the list.
func TestIpvlanChained(t *testing.T) {
	t.Parallel()
	const before = `"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth1"}],
		"ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.9.0.8"}]}`
	host := netsetuptest.NewHost(t)
	p, err := (ipvlan{}).Plan(Request{Strategy: "ipvlan", IfName: "eth0", Network: networkOf(`{"type": "ipvlan", ` + before + `}`)})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "addresses", fmt.Sprint(p.IPs, p.NoLease), "[10.9.0.7/24] true")
	skipWithout(t, host, "ipvlan")
	newCard(t, host)
	c := newContainer(t, host, "web")
	a := c.start(t, host, p, p.IPs)
	wantEqual(t, "parent", a.Sublink.Parent, "eth1")
	wantRoutes(t, c.Node, "eth0", "10.8.0.0/16 via 10.9.0.8", "10.9.0.0/24 scope link", "default via 10.9.0.1")
}

func TestIpvlanRefuses(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	c := newContainer(t, host, "web")
	p := planOf(t, `{"type": "ipvlan", "master": "eth1", `+pools9+`}`)
	c.Run(t, "ip", "link", "add", "eth0", "type", "bridge").OK(t)
	_, err := c.attach(host, p, addrs9(2), noRecord)
	if err == nil {
		t.Fatal("made a second eth0")
	}
	skipWithout(t, host, "ipvlan")
	wantError(t, err, "eth0: make: the container's network namespace has an interface of this name already")
	c.Run(t, "ip", "link", "del", "eth0").OK(t)
	host.Run(t, "ip", "link", "add", "link", "eth1", "name", "m0", "type", "macvlan").OK(t)
	_, err = c.attach(host, p, addrs9(2), noRecord)
	wantError(t, err, "eth0: make: eth1 is a port of a bridge or bond, or carries devices of another kind")
}

// TestNoKind says which option the kernel was built without, where it was.
func TestNoKind(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	for kind, plugin := range map[string]string{
		"ipvlan": `{"type": "ipvlan", "master": "eth1", ` + pools9 + `}`, "vlan": `{"type": "vlan", "master": "eth1", "vlanId": 7, ` + pools9 + `}`,
		"dummy": `{"type": "dummy", ` + pools9 + `}`,
	} {
		c := newContainer(t, host, kind)
		if _, err := c.attach(host, planOf(t, plugin), addrs9(2), noRecord); err != nil {
			wantError(t, err, "eth0: make: the kernel has no "+kind+" devices; modprobe ", ", or a kernel with CONFIG_")
		}
	}
}

func TestVlan(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vlan")
	newCard(t, host)
	host.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9").OK(t)
	// The other container is on the other end of the cable.
	p := planOf(t, `{"type": "vlan", "master": "eth1", "vlanId": 100, "mtu": 1450, `+pools9+`}`)
	q := planOf(t, `{"type": "vlan", "master": "sw1", "vlanId": 100, `+pools9+`}`)
	c, d, e := newContainer(t, host, "web"), newContainer(t, host, "db"), newContainer(t, host, "other")
	a, b := c.start(t, host, p, addrs9(2)), d.start(t, host, q, addrs9(3))
	wantUsable(t, c.Node, "eth0", "10.9.0.3", "fd00:9::3")
	wantTraffic(t, c.Node, d.Node, b.Addresses)
	wantTraffic(t, d.Node, c.Node, a.Addresses)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a), d.check(t, host, b)), "[] []")
	eth := c.Link(t, "eth0")
	wantEqual(t, "MAC, MTU", fmt.Sprint(eth.Address, " ", eth.MTU), host.Link(t, "eth1").Address+" 1450")
	wantParts(t, linkData(t, c.Node, "eth0"), "eth0@if", "vlan protocol 802.1Q id 100 ")

	_, err := e.attach(host, p, addrs9(4), noRecord)
	wantError(t, err, "eth0: make: VLAN 100 of eth1 is a device already, of this or another container, and can't be two; put a bridge or macvlan on it")
	// Another VLAN is another network.
	e.start(t, host, planOf(t, `{"type": "vlan", "master": "eth1", "vlanId": 101, `+pools9+`}`), addrs9(4))
	if err := e.Ping(netip.MustParseAddr("10.9.0.3"), 56, 300*time.Millisecond); err == nil {
		t.Error("VLAN 101 reaches VLAN 100")
	}
	a.Sublink.VLAN, a.Sublink.Parent = 5, "sw1"
	wantEqual(t, "differences", len(c.check(t, host, a)), 2)
}

func TestVlanInContainer(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vlan")
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	p := planOf(t, `{"type": "vlan", "master": "eth0", "vlanId": 7, "linkInContainer": true, `+pools9+`}`,
		func(r *Request) { r.IfName, r.MAC = "net1", "02:00:00:00:00:07" })
	a := c.start(t, host, p, addrs9(2))
	wantParts(t, linkData(t, c.Node, "net1"), "net1@eth0", "id 7", "link/ether 02:00:00:00:00:07 ")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
}

func TestVlanParentDown(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	newCard(t, host)
	host.Run(t, "ip", "link", "set", "eth1", "down").OK(t)
	c := newContainer(t, host, "web")
	_, err := c.attach(host, planOf(t, `{"type": "vlan", "master": "eth1", "vlanId": 100, `+pools9+`}`), addrs9(2), noRecord)
	wantError(t, err, "eth1: down, and as long as it is no VLAN of it can be up; ip link set eth1 up")
}

func TestDummy(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "dummy")
	host.Run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9").OK(t)
	c := newContainer(t, host, "web")
	a := c.start(t, host, planOf(t, `{"type": "dummy", `+pools9+`}`), addrs9(2))
	wantUsable(t, c.Node, "eth0", "10.9.0.2", "fd00:9::2")
	wantEqual(t, "kind", c.Link(t, "eth0").LinkInfo.Kind, "dummy")
	wantEqual(t, "arp_notify", sysctl(t, c.Node, "ipv4/conf/eth0/arp_notify"), "0")
	wantRoutes(t, c.Node, "eth0", "10.9.0.0/24 scope link", "default via 10.9.0.1", "default via fd00:9::1", "fd00:9::/64", "fe80::/64")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	_, err := c.attach(host, planOf(t, `{"type": "dummy", `+pools9+`}`), addrs9(2), noRecord)
	wantError(t, err, "eth0: make: the container's network namespace has an interface of this name already")
	c.Run(t, "ip", "link", "del", "eth0").OK(t)
	c.Run(t, "ip", "link", "add", "eth0", "type", "bridge").OK(t)
	wantParts(t, fmt.Sprint(c.check(t, host, a)), "eth0: kind: want dummy, the kernel has bridge")
}
