package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

func TestLoopback(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p, err := loopback{}.Plan(Request{Strategy: "loopback", MTU: 2000})
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.attach(host, p, nil, noRecord)
	if err != nil {
		t.Fatal(err)
	}
	if found := c.check(t, host, a); len(found) == 0 {
		t.Error("no difference before")
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "MTU", c.Link(t, "lo").MTU, 2000)
	wantUsable(t, c.Node, "lo", "127.0.0.1", "::1")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
}

func TestJoin(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c, other := newContainer(t, host, "web"), newContainer(t, host, "other")
	c.Run(t, "ip", "link", "add", "x", "type", "bridge").OK(t)
	before := c.NetworkSnapshot(t)
	p, err := join{}.Plan(Request{Strategy: "netns", Path: host.Path("/run/netns/web")})
	if err != nil {
		t.Fatal(err)
	}
	// By Do, since OpenNetNS needs a /proc with this process in it.
	attach := func(ns *NetNS) (a Attachment, err error) {
		err = host.Do(func() (err error) {
			a, err = Attach(t.Context(), nil, ns, p, nil, nil, noRecord)
			return err
		})
		return a, err
	}
	a, err := attach(c.ns)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.inside(func(in *Inside) error { return Configure(in, a) }); err != nil {
		t.Fatal(err)
	}
	if diff := netsetuptest.Diff(before, c.NetworkSnapshot(t)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	_, err = attach(other.ns)
	wantError(t, err, "the container is in another one")
}

// TestArrived configures interfaces that come under another name, with another MTU
// and MAC, down and up.
func TestArrived(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"down", "up"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			c := newContainer(t, host, "web")
			host.Run(t, "ip", "link", "add", "br0", "up", "type", "bridge").OK(t)
			host.Run(t, "ip", "addr", "add", "10.1.0.1/24", "dev", "br0").OK(t)
			host.Run(t, "ip", "link", "add", "h0", "master", "br0", "up", "type", "veth", "peer", "name", "moved0", "netns", "web").OK(t)
			c.Run(t, "ip", "link", "set", "moved0", state).OK(t)
			a := Attachment{
				Network: "lan", Strategy: "bridge", IfName: "net1", Arrived: "moved0", HostIf: "h0", Bridge: "br0",
				MAC: "02:00:00:00:00:07", MTU: 1400, Addresses: lanAddrs(2),
				Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")},
				Routes: []Route{
					{Dst: netip.MustParsePrefix("10.7.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.9"), MTU: 1300, Metric: 7},
					{Dst: netip.MustParsePrefix("10.8.0.0/16")},
					{Dst: netip.MustParsePrefix("10.9.0.0/16"), Gateway: netip.MustParseAddr("192.0.2.7"), OnLink: true},
					{Dst: netip.MustParsePrefix("10.6.0.0/16"), Gateway: netip.MustParseAddr("fd00:1::9")},
					{Dst: netip.MustParsePrefix("10.5.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.9"), Table: 1000, AdvMSS: 1200},
					{Dst: netip.MustParsePrefix("10.4.0.0/16"), Table: 7, Scope: 254},
					{Dst: netip.MustParsePrefix("fd00:9::/64"), Gateway: netip.MustParseAddr("fd00:1::8")},
					{Dst: netip.MustParsePrefix("fd00:9::/64"), Gateway: netip.MustParseAddr("fd00:1::9")},
				},
			}
			if err := c.configure(a); err != nil {
				t.Fatal(err)
			}
			host.Run(t, "ip", "link", "set", "h0", "mtu", "1400").OK(t)
			wantUsable(t, c.Node, "net1", "10.1.0.1")
			l := c.Link(t, "net1")
			wantEqual(t, "MTU and MAC", fmt.Sprint(l.MTU, " ", l.Address), "1400 02:00:00:00:00:07")
			wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
			v4 := c.Run(t, "ip", "route", "show", "table", "all").Stdout
			for _, part := range []string{
				"10.7.0.0/16 via 10.1.0.9 dev net1 metric 7 mtu 1300", "10.8.0.0/16 dev net1 scope link",
				"10.9.0.0/16 via 192.0.2.7 dev net1 onlink", "10.6.0.0/16 via inet6 fd00:1::9 dev net1",
				"10.5.0.0/16 via 10.1.0.9 dev net1 table 1000 advmss 1200", "10.4.0.0/16 dev net1 table 7 scope host",
				"nexthop via fd00:1::8", "nexthop via fd00:1::9",
			} {
				if !strings.Contains(v4, part) {
					t.Errorf("routes lack %q:\n%s", part, v4)
				}
			}
			wantError(t, c.configure(a), "moved0: look up")
		})
	}
}

// TestSecondDefault has two networks with a default gateway each: the first one's is
// in use, and the second's is behind it.
func TestSecondDefault(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	first, err := c.attach(host, planOf(t, bridgeNet), lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.attach(host, planOf(t, ptpNet, func(r *Request) { r.IfName = "eth1" }), prefixes("10.2.0.2/24", "fd00:2::2/64"), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(first, second); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range netsetuptest.FindRoute(c.Routes(t), "default") {
		got = append(got, fmt.Sprint(r.Dev, " ", r.Gateway, " ", r.Metric))
	}
	wantEqual(t, "default routes", strings.Join(got, ", "),
		"eth0 10.1.0.1 0, eth1 10.2.0.1 101, eth0 fd00:1::1 1024, eth1 fd00:2::1 1025")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, first), c.check(t, host, second)), "[] []")
}

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	a, err := c.attach(host, planOf(t, bridgeNet), lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		change func(*Attachment)
		want   string
	}{
		{func(a *Attachment) { a.Strategy = "brigde" }, `network type "brigde": unknown`},
		{func(a *Attachment) { a.IfName = "eth7" }, "eth7: look up: no such device"},
		{func(a *Attachment) { a.MAC = "01:00:00:00:00:01" }, "eth0: MAC"},
		{func(a *Attachment) { a.MTU = 60 }, "eth0: set name eth0, MTU 60"},
		{
			func(a *Attachment) { a.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
			"eth0: add default route via 192.0.2.1: network is unreachable: Nexthop has invalid gateway",
		},
		{func(*Attachment) {}, "eth0: add address 10.1.0.2/24: file exists"},
	} {
		b := a
		test.change(&b)
		wantError(t, c.configure(b), test.want)
	}
}

func TestCheckFindsEveryDifference(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	a := c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	for _, args := range []string{
		"link set eth0 address 02:00:00:00:00:99", "addr add 10.7.0.7/24 dev eth0",
		"addr del 10.1.0.2/24 dev eth0", "route del default", "-6 route del default", "link set eth0 mtu 1400",
	} {
		c.Run(t, append([]string{"ip"}, strings.Fields(args)...)...).OK(t)
	}
	host.Run(t, "ip", "link", "set", a.HostIf, "nomaster").OK(t)
	got := make(map[string]string)
	for _, d := range c.check(t, host, a) {
		got[d.String()] = d.Object
	}
	for _, want := range []string{
		"br0: state: want up, the kernel has up without carrier",
		a.HostIf + ": bridge: want br0, the kernel has none",
		"eth0: MAC: want 0a:58:0a:01:00:02, the kernel has 02:00:00:00:00:99",
		"eth0: MTU: want 1500, the kernel has 1400",
		"eth0: address: want 10.1.0.2/24, the kernel has none",
		"eth0: address: want none, the kernel has 10.7.0.7/24",
		"eth0: route: want default route via 10.1.0.1, the kernel has none",
		"eth0: route: want default route via fd00:1::1, the kernel has none",
	} {
		if _, ok := got[want]; !ok {
			t.Errorf("not found: %s", want)
		}
		delete(got, want)
	}
	for more := range got {
		t.Errorf("not expected: %s", more)
	}
	c.Run(t, "ip", "link", "del", "eth0").OK(t)
	wantEqual(t, "without the pair", fmt.Sprint(c.check(t, host, a)),
		fmt.Sprintf("[%s: want a veth, the kernel has none eth0: want an interface, the kernel has none]", a.HostIf))
}

func TestDAD(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
	p := planOf(t, strings.Replace(bridgeNet, `"ipMasq"`, `"enabledad": true, "ipMasq"`, 1))
	c.start(t, host, p, lanAddrs(2))
	wantUsable(t, c.Node, "eth0", "fd00:1::1")
	p.MAC = "02:00:00:00:00:09"
	a, err := d.attach(host, p, lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, d.configure(a), "eth0: address fd00:1::2/64: another host on the network has it")
}

// TestReturningAddress gives an address to a container that a neighbour knows under
// another MAC: with the derived one its entry stays true, else it is told.
func TestReturningAddress(t *testing.T) {
	t.Parallel()
	for _, mac := range []string{"", "02:00:00:00:00:77"} {
		t.Run("mac="+mac, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			neighbour, old, fresh := newContainer(t, host, "neighbour"), newContainer(t, host, "old"), newContainer(t, host, "new")
			p := planOf(t, bridgeNet)
			neighbour.start(t, host, p, lanAddrs(3))
			old.start(t, host, p, lanAddrs(2))
			wantUsable(t, neighbour.Node, "eth0", "10.1.0.2", "fd00:1::2")
			old.Run(t, "ip", "link", "del", "eth0").OK(t)
			p.MAC = mac
			fresh.start(t, host, p, lanAddrs(2))
			wantUsable(t, neighbour.Node, "eth0", "10.1.0.2", "fd00:1::2")
		})
	}
}

// TestDownAndUp takes the interface down for a moment: addresses stay.
func TestDownAndUp(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	c.Run(t, "ip", "link", "set", "eth0", "down").OK(t)
	c.Run(t, "ip", "link", "set", "eth0", "up").OK(t)
	wantUsable(t, c.Node, "eth0", "10.1.0.1", "fd00:1::1")
}

func TestErrorsKeepTheirCause(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	err := c.inside(func(in *Inside) error {
		_, err := in.c.linkByName("nothing")
		return err
	})
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v is not ENODEV", err)
	}
}
