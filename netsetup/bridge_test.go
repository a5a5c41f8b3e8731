package netsetup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

func TestBridge(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	var records []Object
	p := planOf(t, bridgeNet)
	a, err := c.attach(host, p, lanAddrs(2), func(o Object) error {
		if slices.Contains(netsetuptest.Names(host.Links(t)), "br0") {
			t.Error("the bridge is there before its record")
		}
		records = append(records, o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Object{{Kind: "bridge", Network: "lan", Name: "br0"}}; !slices.Equal(records, want) {
		t.Errorf("records %v, want %v", records, want)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	wantUsable(t, c.Node, "eth0", "10.1.0.1", "fd00:1::1")

	br := host.Link(t, "br0")
	wantEqual(t, "bridge's alias", br.Alias, "nsinit network lan")
	wantEqual(t, "bridge's MTU", br.MTU, 1500)
	wantEqual(t, "bridge's addresses", fmt.Sprint(br.Addrs(4), br.Addrs(6)), "[10.1.0.1/24] [fd00:1::1/64]")
	wantEqual(t, "bridge's accept_ra", sysctl(t, host.Node, "ipv6/conf/br0/accept_ra"), "0")

	port := host.Link(t, a.HostIf)
	wantEqual(t, "port's bridge", port.Master, "br0")
	wantEqual(t, "port's alias", port.Alias, "nsinit web eth0 of lan")
	wantEqual(t, "port's queues", fmt.Sprint(port.NumTxQueues, port.NumRxQueues), "1 1")
	wantEqual(t, "port's accept_ra", sysctl(t, host.Node, "ipv6/conf/"+a.HostIf+"/accept_ra"), "0")
	wantEqual(t, "port's addresses", len(port.AddrInfo), 0)
	if !strings.HasPrefix(a.HostIf, "ns") || len(a.HostIf) != 12 {
		t.Errorf("host's end is called %s", a.HostIf)
	}

	eth := c.Link(t, "eth0")
	wantEqual(t, "MAC", eth.Address, "0a:58:0a:01:00:02")
	wantEqual(t, "queues", fmt.Sprint(eth.NumTxQueues, eth.NumRxQueues), "1 1")
	wantEqual(t, "addresses", fmt.Sprint(eth.Addrs(4), eth.Addrs(6)), "[10.1.0.2/24] [fd00:1::2/64]")
	wantEqual(t, "accept_ra", sysctl(t, c.Node, "ipv6/conf/eth0/accept_ra"), "0")
	if v4 := c.Run(t, "ip", "-4", "addr", "show", "eth0").Stdout; !strings.Contains(v4, "brd 10.1.0.255") {
		t.Errorf("no broadcast address: %s", v4)
	}
	var routes []string
	for _, r := range netsetuptest.FindRoute(c.Routes(t), "default") {
		routes = append(routes, r.Gateway)
	}
	wantEqual(t, "default gateways", fmt.Sprint(routes), "[10.1.0.1 fd00:1::1]")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
}

func TestBridgeIPv4Only(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planOf(t, `{"type": "bridge", "bridge": "br0", "isGateway": true, "mtu": 1000,
		"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}`)
	a := c.start(t, host, p, prefixes("10.1.0.2/24"))
	wantUsable(t, c.Node, "eth0", "10.1.0.1")
	eth := c.Link(t, "eth0")
	wantEqual(t, "MTU", eth.MTU, 1000)
	wantEqual(t, "addresses", len(eth.AddrInfo), 1)
	wantEqual(t, "default routes", len(netsetuptest.FindRoute(c.Routes(t), "default")), 0)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")

	other := newContainer(t, host, "db")
	p = planOf(t, `{"type": "bridge", "bridge": "br0", "isGateway": true,
		"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}`)
	a = other.start(t, host, p, prefixes("10.1.0.3/24"))
	wantEqual(t, "MTU taken from the bridge", other.Link(t, "eth0").MTU, 1000)
	wantUsable(t, other.Node, "eth0", "10.1.0.1", "10.1.0.2")
	wantEqual(t, "differences", fmt.Sprint(other.check(t, host, a)), "[]")
}

// TestBridgeIPv4OnlyDisablesIPv6 needs an MTU at which the device could have IPv6.
func TestBridgeIPv4OnlyDisablesIPv6(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, `{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}`), prefixes("10.1.0.2/24"))
	wantEqual(t, "disable_ipv6", sysctl(t, c.Node, "ipv6/conf/eth0/disable_ipv6"), "1")
	wantEqual(t, "addresses", len(c.Link(t, "eth0").AddrInfo), 1)
	wantEqual(t, "default bridge", host.Link(t, "cni0").LinkInfo.Kind, "bridge")
}

func TestBridgeWithoutAddresses(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	a := c.start(t, host, planOf(t, `{"type": "bridge", "bridge": "br0", "hairpinMode": true, "ipam": {}}`), nil)
	eth := c.Link(t, "eth0")
	if !eth.Up() || len(eth.Addrs(4)) != 0 {
		t.Errorf("eth0: %+v", eth)
	}
	port := host.Run(t, "ip", "-d", "link", "show", a.HostIf).Stdout
	if !strings.Contains(port, "hairpin on") {
		t.Errorf("no hairpin: %s", port)
	}
}

func TestBridgeMTUOfUplink(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	for _, args := range [][]string{
		{"link", "add", "up0", "mtu", "1342", "up", "type", "veth", "peer", "name", "up1"},
		{"addr", "add", "198.51.100.2/24", "dev", "up0"},
		{"route", "add", "default", "via", "198.51.100.1"},
	} {
		host.Run(t, append([]string{"ip"}, args...)...).OK(t)
	}
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	wantEqual(t, "bridge", host.Link(t, "br0").MTU, 1342)
	wantEqual(t, "eth0", c.Link(t, "eth0").MTU, 1342)
	p := newContainer(t, host, "ptp")
	p.start(t, host, planOf(t, ptpNet), prefixes("10.2.0.2/24", "fd00:2::2/64"))
	wantEqual(t, "eth0 of ptp", p.Link(t, "eth0").MTU, 1342)
}

// TestBridgeRace has several starters at once make the bridge that all need.
func TestBridgeRace(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	const n = 8
	containers := make([]testContainer, n)
	for i := range containers {
		containers[i] = newContainer(t, host, fmt.Sprint("c", i))
	}
	for round := range 5 {
		attachments := make([]Attachment, n)
		errs := together(n, func(i int) (err error) {
			p := planOf(t, bridgeNet, func(r *Request) { r.IfName = fmt.Sprint("eth", round) })
			attachments[i], err = containers[i].attach(host, p, lanAddrs(2+i), noRecord)
			if err != nil {
				return err
			}
			return containers[i].configure(attachments[i])
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		br := host.Link(t, "br0")
		wantEqual(t, "bridge's addresses", fmt.Sprint(br.Addrs(4), br.Addrs(6)), "[10.1.0.1/24] [fd00:1::1/64]")
		wantEqual(t, "bridge's accept_ra", sysctl(t, host.Node, "ipv6/conf/br0/accept_ra"), "0")
		for i, a := range attachments {
			wantUsable(t, containers[i].Node, a.IfName, "10.1.0.1", "fd00:1::1")
			wantEqual(t, "differences", fmt.Sprint(containers[i].check(t, host, a)), "[]")
			containers[i].Run(t, "ip", "link", "del", a.IfName).OK(t)
		}
		host.Run(t, "ip", "link", "del", "br0").OK(t)
	}
}

func TestBridgeRefuses(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planOf(t, bridgeNet)

	host.Run(t, "ip", "link", "add", "br0", "type", "veth", "peer", "name", "br1").OK(t)
	_, err := c.attach(host, p, lanAddrs(2), noRecord)
	wantError(t, err, "br0: not a bridge but a device of kind veth")
	host.Run(t, "ip", "link", "del", "br0").OK(t)

	host.Run(t, "ip", "link", "add", "br0", "type", "bridge").OK(t)
	host.Run(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "br0").OK(t)
	before := host.Snapshot(t)
	_, err = c.attach(host, p, lanAddrs(2), noRecord)
	wantError(t, err, "br0: has address 10.9.0.1/24", "10.1.0.1/24", "forceAddress")
	host.Await(t, before)

	force := p
	force.ForceAddress = true
	if _, err = c.attach(host, force, lanAddrs(2), noRecord); err != nil {
		t.Error(err)
	}
	wantEqual(t, "addresses", fmt.Sprint(host.Link(t, "br0").Addrs(4)), "[10.1.0.1/24]")

	_, err = c.attach(host, p, lanAddrs(3), noRecord)
	wantError(t, err, "eth0: make:", "an interface of this name already")
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("%v is not EEXIST", err)
	}
	wantEqual(t, "devices", len(host.Links(t)), 3)

	_, err = c.attach(host, p, prefixes("10.1.0.1/24"), noRecord)
	wantError(t, err, "the gateway has it")

	stop := errors.New("record full")
	host.Run(t, "ip", "link", "del", "br0").OK(t)
	_, err = c.attach(host, p, lanAddrs(2), func(Object) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error %v, want %v", err, stop)
	}
	if slices.Contains(netsetuptest.Names(host.Links(t)), "br0") {
		t.Error("the bridge was made without a record")
	}
}

func TestBridgeFull(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	host.Run(t, "ip", "link", "add", "br0", "type", "bridge").OK(t)
	for first := 0; first < 512; first += 64 { // in parts: an emulated machine takes its time
		var batch strings.Builder
		for i := first; i < first+64; i++ {
			fmt.Fprintf(&batch, "link add d%d master br0 numtxqueues 1 numrxqueues 1 type veth peer name e%d numtxqueues 1 numrxqueues 1\n", i, i)
			if i > 0 {
				fmt.Fprintf(&batch, "link set e%d master br0\n", i)
			}
		}
		cmd := host.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch.String())
		host.RunCmd(t, cmd).OK(t)
	}
	_, err := c.attach(host, planOf(t, bridgeNet), lanAddrs(2), noRecord)
	wantError(t, err, "br0: a bridge has at most 1023 ports")
	wantEqual(t, "devices inside", len(c.Links(t)), 1)
}

func TestUndoBridge(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	var o Object
	a, err := c.attach(host, planOf(t, bridgeNet), lanAddrs(2), func(rec Object) error { o = rec; return nil })
	if err != nil {
		t.Fatal(err)
	}
	undo := func(o Object) error {
		return onHost(host, func(h *Host) error { return Undo(context.Background(), h, o) })
	}
	if err := undo(o); !errors.Is(err, unix.EBUSY) {
		t.Errorf("with a port: %v, want EBUSY", err)
	}
	link := Object{Kind: "link", Name: a.HostIf, Owner: "db"}
	if err := undo(link); err != nil || !slices.Contains(netsetuptest.Names(host.Links(t)), a.HostIf) {
		t.Errorf("another container's link: %v", err)
	}
	link.Owner = "web"
	for range 2 {
		if err := undo(link); err != nil {
			t.Error(err)
		}
		if err := undo(o); err != nil {
			t.Error(err)
		}
	}
	wantEqual(t, "devices", fmt.Sprint(netsetuptest.Names(host.Links(t))), "[lo]")

	host.Run(t, "ip", "link", "add", "br0", "type", "bridge").OK(t)
	host.Run(t, "ip", "link", "add", a.HostIf, "type", "veth", "peer", "name", "other").OK(t)
	if err := errors.Join(undo(o), undo(link)); err != nil {
		t.Error(err)
	}
	wantEqual(t, "devices of others", len(host.Links(t)), 4)
	wantError(t, undo(Object{Kind: "house"}), `"house": unknown`)
}

// TestBridgeKeepsItself has a port with another MTU and a lower MAC come.
func TestBridgeKeepsItself(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
	c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	before := host.Link(t, "br0")
	small := planOf(t, bridgeNet, func(r *Request) { r.MTU = 1300 })
	a := d.start(t, host, small, lanAddrs(3))
	wantEqual(t, "MTU inside", d.Link(t, "eth0").MTU, 1300)
	host.Run(t, "ip", "link", "set", a.HostIf, "address", "00:00:00:00:00:02").OK(t)
	after := host.Link(t, "br0")
	wantEqual(t, "MTU and MAC", fmt.Sprint(after.MTU, after.Address), fmt.Sprint(before.MTU, before.Address))
}

// TestBridgeHalfMade starts on what a starter leaves that is killed behind each request.
func TestBridgeHalfMade(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	p := planOf(t, bridgeNet)
	made := func(h *Host) error { _, err := h.makeBridge(p, noRecord); return err }
	named := func(h *Host) error { _, err := h.nameBridge(p); return err }
	var steps []func(h *Host) error
	for i, next := range []func(h *Host) error{made, named} {
		steps = append(steps, next)
		if err := onHost(host, func(h *Host) error {
			for _, f := range steps {
				if err := f(h); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := newContainer(t, host, fmt.Sprint("c", i))
		a := c.start(t, host, p, lanAddrs(2))
		wantUsable(t, c.Node, "eth0", "10.1.0.1", "fd00:1::1")
		br := host.Link(t, "br0")
		wantEqual(t, "bridge", fmt.Sprint(br.Alias, " ", br.MTU), "nsinit network lan 1500")
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
		c.Run(t, "ip", "link", "del", "eth0").OK(t)
		host.Run(t, "ip", "link", "del", "br0").OK(t)
	}
	if err := onHost(host, made); err != nil {
		t.Fatal(err)
	}
	err := onHost(host, func(h *Host) error {
		return Undo(context.Background(), h, Object{Kind: "bridge", Network: "lan", Name: "br0"})
	})
	if err != nil || len(host.Links(t)) != 1 {
		t.Errorf("half-made bridge is left: %v", err)
	}
}

// TestBridgeOfTheSite joins a bridge that somebody else made.
func TestBridgeOfTheSite(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	host.Run(t, "ip", "link", "add", "br0", "mtu", "1400", "up", "type", "bridge", "stp_state", "1").OK(t)
	var warnings []string
	attach := func(p Plan, addrs ...string) {
		t.Helper()
		err := onHost(host, func(h *Host) error {
			h.Warn = func(line string) { warnings = append(warnings, line) }
			_, err := Attach(context.Background(), h, c.ns, p, prefixes(addrs...), nil, func(o Object) error {
				return fmt.Errorf("recorded as ours: %v", o)
			})
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	attach(planOf(t, `{"type": "bridge", "bridge": "br0", "mtu": 1500, "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}`), "10.1.0.2/24")
	wantEqual(t, "accept_ra of a bare bridge", sysctl(t, host.Node, "ipv6/conf/br0/accept_ra"), "1")
	wantEqual(t, "warnings", strings.Join(warnings, "\n"),
		"bridge br0: its spanning tree protocol keeps eth0 cut off for the first 30 s\n"+
			"bridge br0: its MTU is 1400, and it drops what eth0 sends with 1500")

	host.Run(t, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "0").OK(t)
	host.Run(t, "ip", "addr", "add", "10.1.0.1/24", "dev", "br0").OK(t)
	attach(planOf(t, `{"type": "bridge", "bridge": "br0", "isGateway": true, "promiscMode": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}`,
		func(r *Request) { r.IfName = "eth1" }), "10.1.0.3/24")
	wantEqual(t, "accept_ra of a gateway", sysctl(t, host.Node, "ipv6/conf/br0/accept_ra"), "0")
	if flags := host.Link(t, "br0").Flags; !slices.Contains(flags, "PROMISC") {
		t.Errorf("flags %v", flags)
	}
	wantEqual(t, "warnings", len(warnings), 2)
}

// TestBridgeWithoutIPv6OnNewDevices is a host that gives new devices no IPv6.
func TestBridgeWithoutIPv6OnNewDevices(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	for _, n := range []*netsetuptest.Node{host.Node, c.Node} {
		n.Run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").OK(t)
	}
	a := c.start(t, host, planOf(t, bridgeNet), lanAddrs(2))
	wantUsable(t, c.Node, "eth0", "10.1.0.1", "fd00:1::1")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	d := newContainer(t, host, "db")
	a = d.start(t, host, planOf(t, ptpNet), prefixes("10.2.0.2/24", "fd00:2::2/64"))
	wantUsable(t, d.Node, "eth0", "10.2.0.1", "fd00:2::1")
	wantEqual(t, "differences", fmt.Sprint(d.check(t, host, a)), "[]")
}

func TestBridgeTooSmallForIPv6(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	host.Run(t, "ip", "link", "add", "br0", "mtu", "1200", "type", "bridge").OK(t)
	p := planOf(t, `{"type": "bridge", "bridge": "br0", `+pools+`}`)
	_, err := c.attach(host, p, lanAddrs(2), noRecord)
	wantError(t, err, "br0: MTU 1200: too small for IPv6")
	wantEqual(t, "devices", len(host.Links(t)), 2)
}
