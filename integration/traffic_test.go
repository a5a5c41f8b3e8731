package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A carrier is a network that two containers are put on, beside a station outside of their host.
type carrier struct {
	name    string
	plugins string // of its list; SITE is the host's device to the outside
	needs   string // a type of device, as for ip-link(8), that not every kernel has
	one     bool   // a container takes all there is: no second one
	closed  bool   // no way leads out of it
	gateway bool   // the host is on the network
	nat     bool   // the outside sees the host's addresses, and the host publishes ports
	routed  bool   // the outside's way to the containers is by the host
	tagged  bool   // the outside is in VLAN 7
}

const (
	hidden = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.60.0.0/24"}], [{"subnet": "fd60::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`
	onSite = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "198.51.100.0/28", "rangeStart": "198.51.100.5"}], [{"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::5"}]]}`
	ports  = `, {"type": "portmap", "capabilities": {"portMappings": true}}`
)

// carriers are all strategies that make an interface with another end. A dummy has none, tap's is a program
// (TestTapCarriesFrames), and loopback's is the container itself.
func carriers() []carrier {
	list := []carrier{
		{name: "bridge", plugins: `{"type": "bridge", "isDefaultGateway": true, "ipMasq": true, ` + hidden + `}` + ports, gateway: true, nat: true},
		{name: "bridge, vlan", plugins: `{"type": "bridge", "bridge": "br0", "vlan": 7, "isDefaultGateway": true, "ipMasq": true, ` + hidden + `}` + ports, gateway: true, nat: true, needs: "bridge vlan_filtering 1"},
		{name: "bridge, routed", plugins: `{"type": "bridge", "isDefaultGateway": true, ` + hidden + `}`, gateway: true, routed: true},
		{name: "bridge, closed", plugins: `{"type": "bridge", ` + hidden + `}`, closed: true},
		{name: "ptp", plugins: `{"type": "ptp", "ipMasq": true, ` + hidden + `}` + ports, gateway: true, nat: true},
		{name: "vlan", plugins: `{"type": "vlan", "master": "SITE", "vlanId": 7, ` + hidden + `}`, one: true, tagged: true, needs: "vlan id 9"},
		{name: "host-device", plugins: `{"type": "host-device", "device": "SITE", ` + onSite + `}`, one: true},
	}
	for _, mode := range []string{"bridge", "vepa", "private", "passthru"} {
		list = append(list, carrier{
			name: "macvlan, " + mode, one: mode != "bridge", // the others' frames come back by a switch, or don't
			plugins: `{"type": "macvlan", "master": "SITE", "mode": "` + mode + `", ` + onSite + `}`,
		})
	}
	for _, mode := range []string{"l2", "l3", "l3s"} {
		ipam := onSite
		if mode != "l2" {
			ipam = hidden
		}
		list = append(list, carrier{
			name: "ipvlan, " + mode, routed: mode != "l2", needs: "ipvlan mode " + mode,
			plugins: `{"type": "ipvlan", "master": "SITE", "mode": "` + mode + `", ` + ipam + `}`,
		})
	}
	return list
}

// TestStrategiesCarryTraffic has ICMP, TCP and UDP of both families go between containers, to the host, to the outside and
// through published ports, wherever a strategy has that way.
func TestStrategiesCarryTraffic(t *testing.T) {
	t.Parallel()
	for _, c := range carriers() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.carry(t)
		})
	}
}

func (c carrier) carry(t *testing.T) {
	m := newMachine(t)
	m.Dirty() // the network's own things
	out := m.Outside(t)
	c.prepare(t, m, out)
	path := listFile(t, "lan", strings.ReplaceAll(c.plugins, "SITE", out.HostIf))
	args := []string{"--network", path}
	if c.nat {
		args = append(args, "-p", "20000-60999:20000-60999", "-p", "20000-60999:20000-60999/udp")
	}
	a := m.detached(t, "a", append(args, "sleep", "100")...)
	echo := a.node(t).Echo(t)
	if !c.closed {
		c.outside(t, a, out, echo)
	}
	v4, v6 := a.addrs(t)
	if c.gateway {
		host := m.EchoOn(t, 7777) // no published port
		c.both(t, "host", netip.MustParseAddr("10.60.0.1"), netip.MustParseAddr("fd60::1"), func(to netip.Addr) error { return reaches(a.node(t), to, host, 1500) })
		c.both(t, "from the host", v4, v6, func(to netip.Addr) error { return reaches(m.Node, to, echo, 1500) })
	}
	if c.one {
		return
	}
	b := m.detached(t, "b", "--network", path, "sleep", "100")
	c.both(t, "between", v4, v6, func(to netip.Addr) error { return reaches(b.node(t), to, echo, 1500) })
}

// outside has a and the outside exchange packets.
func (c carrier) outside(t *testing.T, a *container, out *netsetuptest.Peer, echo *netsetuptest.Echo) {
	t.Helper()
	station := out.Echo(t)
	c.both(t, "outside", out.V4, out.V6, func(to netip.Addr) error { return reaches(a.node(t), to, station, 1500) })
	v4, v6 := a.addrs(t)
	want := []netip.Addr{v4, v6}
	if c.nat {
		want = []netip.Addr{out.HostV4, out.HostV6}
		if err := published(out.Node, int(echo.Port), want...); err != nil {
			t.Error("published ports: ", err)
		}
	} else {
		c.both(t, "from outside", v4, v6, func(to netip.Addr) error { return reaches(out.Node, to, echo, 1500) })
	}
	seen := station.Seen()
	slices.SortFunc(seen, netip.Addr.Compare)
	if !slices.Equal(seen, want) {
		t.Errorf("the outside saw %v, want %v", seen, want)
	}
}

// prepare gives the outside its place on the network, and skips what the kernel has no devices for.
func (c carrier) prepare(t *testing.T, m *machine, out *netsetuptest.Peer) {
	t.Helper()
	if c.needs != "" && m.Run(t, "sh", "-c", "ip link add link "+out.HostIf+" name probe0 type "+c.needs+" && ip link del probe0").Code != 0 {
		t.Skip("the kernel has no devices of type " + c.needs)
	}
	switch {
	case c.routed:
		out.Run(t, "ip", "route", "add", "10.60.0.0/24", "via", out.HostV4.String()).OK(t)
		out.Run(t, "ip", "route", "add", "fd60::/64", "via", out.HostV6.String()).OK(t)
	case c.tagged:
		out.Run(t, "sh", "-ec", `ip addr flush dev eth0; ip link add link eth0 name eth0.7 type vlan id 7
			ip addr add 10.60.0.99/24 dev eth0.7; ip addr add fd60::99/64 dev eth0.7 nodad; ip link set eth0.7 up`).OK(t)
		out.V4, out.V6 = netip.MustParseAddr("10.60.0.99"), netip.MustParseAddr("fd60::99")
	}
}

func (c carrier) both(t *testing.T, what string, v4, v6 netip.Addr, try func(netip.Addr) error) {
	t.Helper()
	for _, to := range []netip.Addr{v4, v6} {
		if err := try(to); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
