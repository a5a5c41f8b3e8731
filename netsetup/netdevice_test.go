package netsetup

import (
	"fmt"
	"strings"
	"testing"
)

func TestNetDevicePlan(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ device, name, err string }{
		{"eth9", "eth9", ""},
		{"eth9", "lan%d", ""},
		{"office-uplink-with-a-long-name", "eth0", ""},
		{"", "eth0", "no device given"},
		{"eth9", "", "interface name"},
		{"lo", "eth0", "loopback"},
		{"eth9", "lan%d%d", `'%' is not allowed`},
		{"eth9", "%s", `'%' is not allowed`},
		{"eth9", "sixteen-bytes-00", "16 bytes"},
	} {
		_, err := netDevice{}.Plan(Request{Strategy: "net-device", Device: test.device, IfName: test.name})
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q as %q: %v, want %q", test.device, test.name, err, test.err)
		}
	}
}

func TestNetDeviceKeepsAddresses(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	c.Run(t, "ip", "link", "add", "lan0", "type", "bridge").OK(t)
	p, err := netDevice{}.Plan(Request{Strategy: "net-device", Device: "office9", IfName: "lan%d", Owner: "web"})
	if err != nil {
		t.Fatal(err)
	}
	l := new(lent)
	a, err := c.attach(host, p, nil, l.record)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	eth := c.Link(t, "lan1")
	want := "lan1 eth9 1400 to the office true [10.9.0.2/24 10.8.0.1/32 10.6.0.1/24 10.9.0.3/24] [fd00:8::3/64 fd00:9::2/64]"
	wantEqual(t, "inside", strings.TrimSpace(fmt.Sprintln(a.IfName, a.HostDevice, eth.MTU, eth.Alias, eth.Up(), eth.Addrs(4), eth.Addrs(6))), want)
	words := c.Run(t, "ip", "addr", "show", "dev", "lan1").OK(t).Stdout
	for _, part := range []string{
		"inet 10.9.0.2/24 brd 10.9.0.255 scope global lan1:a", "inet 10.8.0.1 peer 10.8.0.2/32",
		"inet 10.6.0.1/24 metric 77 scope global noprefixroute lan1", "inet6 fd00:8::3/64 scope global nodad home noprefixroute",
	} {
		if !strings.Contains(words, part) {
			t.Errorf("no %q in\n%s", part, words)
		}
	}
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	c.Run(t, "ip", "link", "del", "lan0").OK(t)
	wantHome(t, host, before)

	c.Run(t, "ip", "link", "add", "eth9", "type", "bridge").OK(t)
	p.IfName = "eth9"
	_, err = c.attach(host, p, nil, l.record)
	wantError(t, err, "eth9: the container's network namespace has an interface of this name already")
	c.Run(t, "ip", "link", "del", "eth9").OK(t)
	wantHome(t, host, before)
}
