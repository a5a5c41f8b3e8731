package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const sbrRouted = `{"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": {"type": "host-local",
	"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
	"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1400}, {"dst": "fd00:9::/64", "gw": "fd00:1::9"}]}}`

// ruleLines are the rules that are not in every namespace, and the routes of all tables but the kernel's local ones.
func ruleLines(t *testing.T, n *netsetuptest.Node) string {
	t.Helper()
	return n.Run(t, "sh", "-c", `for f in -4 -6; do ip $f rule | grep -v 'from all lookup'; ip $f route show table all | grep -v 'table local' | sort; done | sed 's/ *$//'`).OK(t).Stdout
}

const sbrState = `32765:	from 10.1.0.2 lookup 100
10.1.0.0/24 dev eth0 table 100 proto kernel scope link src 10.1.0.2
10.9.0.0/16 via 10.1.0.9 dev eth0 table 100 mtu 1400
default via 10.1.0.1 dev eth0 table 100
32765:	from fd00:1::2 lookup 101
default via fd00:1::1 dev eth0 table 101 metric 1024 pref medium
fd00:1::/64 dev eth0 table 101 proto kernel metric 256 pref medium
fd00:9::/64 via fd00:1::9 dev eth0 table 101 metric 1024 pref medium
fe80::/64 dev eth0 proto kernel metric 256 pref medium
`

func TestSBR(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, SBRPolicy(), sbrRouted, `{"type": "sbr"}`)
	a := c.startChained(t, host, p, lanAddrs(2))
	awaitLinkLocal(t, c.Node, "eth0")
	wantEqual(t, "state", ruleLines(t, c.Node), sbrState)
	wantUsable(t, c.Node, "eth0") // what has no source yet has no route: as behind the CNI plugin
	host.Run(t, "sh", "-c", "ip addr add 203.0.113.9/32 dev br0; ip addr add 2001:db8::9/128 dev br0 nodad").OK(t)
	for _, args := range []string{"10.1.0.2 203.0.113.9", "10.1.0.2 10.1.0.1", "fd00:1::2 2001:db8::9", "fd00:1::2 fd00:1::1"} {
		c.Run(t, append([]string{"ping", "-c1", "-W2", "-I"}, strings.Fields(args)...)...).OK(t)
	}
	wantEqual(t, "strategy's differences", fmt.Sprint(c.check(t, host, a)), "[]")
	wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")
	if err := c.inside(func(in *Inside) error { return ConfigurePolicies(in, a) }); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "state after a second time", ruleLines(t, c.Node), sbrState)

	c.Run(t, "ip", "route", "del", "10.9.0.0/16", "table", "100").OK(t)
	wantEqual(t, "strategy's differences", fmt.Sprint(c.check(t, host, a)), "[eth0: route: want route 10.9.0.0/16 via 10.1.0.9 mtu 1400, the kernel has none]")
	c.Run(t, "ip", "route", "del", "default", "table", "100").OK(t)
	c.Run(t, "ip", "-6", "rule", "del", "from", "fd00:1::2").OK(t)
	wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)),
		"[eth0: route: want default route via 10.1.0.1 table 100, the kernel has none rule from fd00:1::2: want a table, the kernel has none]")
}

func awaitLinkLocal(t *testing.T, n *netsetuptest.Node, ifName string) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		if !slices.ContainsFunc(n.Link(t, ifName).AddrInfo, func(a netsetuptest.Addr) bool { return a.Scope == "link" }) {
			return fmt.Errorf("%s: no link-local address", ifName)
		}
		return nil
	})
}

// TestSBRSeveral has two interfaces with default routes, and answers leave by the one that was asked.
func TestSBRSeveral(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	var all []Attachment
	for i, net := range []string{sbrRouted, strings.NewReplacer("br0", "br1", "10.1.", "10.2.", "fd00:1:", "fd00:2:").Replace(sbrRouted)} {
		p := planChained(t, SBRPolicy(), net, `{"type": "sbr"}`, func(r *Request) { r.IfName = fmt.Sprint("eth", i) })
		all = append(all, c.attachChained(t, host, p, prefixes(fmt.Sprintf("10.%d.0.2/24", i+1), fmt.Sprintf("fd00:%d::2/64", i+1)), noRecord))
	}
	if err := c.configure(all...); err != nil {
		t.Fatal(err)
	}
	host.Run(t, "sh", "-c", "ip addr add 203.0.113.9/32 dev lo; ip addr add 2001:db8::9/128 dev lo").OK(t)
	for _, one := range [][3]string{
		{"10.1.0.2", "203.0.113.9", "eth0"},
		{"10.2.0.2", "203.0.113.9", "eth1"},
		{"fd00:1::2", "2001:db8::9", "eth0"},
		{"fd00:2::2", "2001:db8::9", "eth1"},
	} {
		got := c.Run(t, "ip", "route", "get", one[1], "from", one[0]).OK(t).Stdout
		if !strings.Contains(got, "dev "+one[2]) {
			t.Errorf("from %s: %s", one[0], got)
		}
		c.Run(t, "ping", "-c1", "-W2", "-I", one[0], one[1]).OK(t)
	}
	tables := ruleLines(t, c.Node)
	for _, want := range []string{"from 10.1.0.2 lookup 100", "from fd00:1::2 lookup 101", "from 10.2.0.2 lookup 102", "from fd00:2::2 lookup 103"} {
		if !strings.Contains(tables, want) {
			t.Errorf("no %q in\n%s", want, tables)
		}
	}
	for _, a := range all {
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	}
}

func TestSBRTable(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, SBRPolicy(), sbrRouted, `{"type": "sbr", "table": 70000}`)
	a := c.startChained(t, host, p, lanAddrs(2))
	lines := ruleLines(t, c.Node)
	for _, want := range []string{"from 10.1.0.2 lookup 70000", "from fd00:1::2 lookup 70000", "default via 10.1.0.1 dev eth0\n"} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a), c.checkPolicy(t, host, p, a)), "[] []")
}

// TestSBRGoes: in a namespace that lives on, the rules go with the interface.
func TestSBRGoes(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newNamed(t, host, "web")
	c.Run(t, "ip", "rule", "add", "from", "10.7.7.7", "table", "100").OK(t)
	p := planChained(t, SBRPolicy(), sbrRouted, `{"type": "sbr"}`)
	a, err := c.attach(host, p.Plan, lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	a.Configured = true
	var records []Object
	c.attachPolicy(t, host, p, &a, func(o Object) error { records = append(records, o); return nil })
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	if lines := ruleLines(t, c.Node); !strings.Contains(lines, "from 10.1.0.2 lookup 101") {
		t.Errorf("a table that somebody has is taken:\n%s", lines)
	}
	undo(t, host, records)
	if lines := ruleLines(t, c.Node); strings.Contains(lines, "from 10.1.0.2") || strings.Contains(lines, "from fd00") || !strings.Contains(lines, "from 10.7.7.7 lookup 100") {
		t.Errorf("after the end:\n%s", lines)
	}
}

func TestSBRCommands(t *testing.T) {
	t.Parallel()
	for _, net := range []string{sbrRouted, ptpNet} {
		var states []string
		for _, byHand := range []bool{false, true} {
			host := netsetuptest.NewHost(t)
			c := newContainer(t, host, "web")
			p := planChained(t, SBRPolicy(), net, `{"type": "sbr"}`)
			a, err := c.attach(host, p.Plan, func() []netip.Prefix {
				if net == ptpNet {
					return prefixes("10.2.0.2/24", "fd00:2::2/64")
				}
				return lanAddrs(2)
			}(), noRecord)
			if err != nil {
				t.Fatal(err)
			}
			if !byHand {
				c.attachPolicy(t, host, p, &a, noRecord)
			}
			if err := c.configure(a); err != nil {
				t.Fatal(err)
			}
			if byHand {
				replayPolicy(t, host, c.Node, p.policy.Commands(p.Plan, p.conf, a))
			}
			awaitLinkLocal(t, c.Node, "eth0")
			states = append(states, ruleLines(t, c.Node))
		}
		if states[0] != states[1] {
			t.Errorf("nsinit made\n%s\nits commands\n%s", states[0], states[1])
		}
	}
}

func TestSBRFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ keys, want string }{
		{`"table": "main"`, `lan.conflist: plugins[1].table: a string; a number is wanted`},
		{`"table": 0`, `plugins[1].table: "0": no routing table; 1 to 4294967295`},
		{`"table": -1`, `plugins[1].table`},
		{`"table": 4294967296`, `no routing table`},
		{`"tables": 1`, `plugins[1].tables: unknown key; did you mean table?`},
	} {
		n := listOf(bridgeNet, `{"type": "sbr", `+test.keys+`}`)
		p := planOf(t, bridgeNet, func(r *Request) { r.Network = n })
		_, err := SBRPolicy().Plan(p, n.Plugins[1])
		wantError(t, err, test.want)
	}
	err := SBRPolicy().Attach(context.Background(), nil, nil, Plan{}, &SourceRouting{}, &Attachment{IfName: "eth0"}, noRecord)
	wantError(t, err, "eth0: no address to route by")
}
