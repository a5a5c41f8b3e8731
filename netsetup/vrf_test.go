package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const vrfRouted = `{"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": {"type": "host-local",
	"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
	"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}]}}`

// vrfLines are all routes but those that the kernel makes for itself, and the rule of VRFs.
func vrfLines(t *testing.T, n *netsetuptest.Node) string {
	t.Helper()
	return n.Run(t, "sh", "-c", `ip -d link show type vrf | grep -o 'vrf table.*' | cut -d' ' -f1-3
		for f in -4 -6; do ip $f rule | grep l3mdev; ip $f route show table all | grep -v -E 'table local|^local|^broadcast|^multicast|^anycast|fe80|ff00' | sort; done | sed 's/ *$//'`).OK(t).Stdout
}

const vrfState = `vrf table 7
1000:	from all lookup [l3mdev-table]
10.1.0.0/24 dev eth0 table 7 proto kernel scope link src 10.1.0.2
10.9.0.0/16 via 10.1.0.9 dev eth0 table 7
default via 10.1.0.1 dev eth0 table 7
1000:	from all lookup [l3mdev-table]
default via fd00:1::1 dev eth0 table 7 metric 1024 pref medium
fd00:1::/64 dev eth0 table 7 proto kernel metric 256 pref medium
`

func TestVRF(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vrf")
	for _, late := range []bool{false, true} {
		name := map[bool]string{false: "web", true: "late"}[late]
		c := newContainer(t, host, name)
		p := planChained(t, VRFPolicy(), vrfRouted, `{"type": "vrf", "vrfname": "red", "table": 7}`)
		a, err := c.attach(host, p.Plan, map[bool][]netip.Prefix{false: lanAddrs(2), true: lanAddrs(3)}[late], noRecord)
		if err != nil {
			t.Fatal(err)
		}
		if late { // as a CNI plugin behind another
			if err := c.configure(a); err != nil {
				t.Fatal(err)
			}
			a.Configured = true
			c.Run(t, "sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=0").OK(t) // as other plugins leave it
		}
		c.attachPolicy(t, host, p, &a, noRecord)
		for range 2 { // a second time changes nothing
			if late || !a.Configured {
				if err := c.configure(a); err != nil {
					t.Fatal(err)
				}
			}
			a.Configured = true
			awaitLinkLocal(t, c.Node, "eth0")
			want := vrfState
			if late {
				want = strings.ReplaceAll(want, "10.1.0.2", "10.1.0.3")
			}
			wantEqual(t, name+": state", vrfLines(t, c.Node), want)
			wantEqual(t, "master", c.Link(t, "eth0").Master, "red")
			wantUsable(t, c.Node, "eth0")
			for _, to := range []string{"10.1.0.1", "fd00:1::1"} {
				c.Run(t, "ping", "-c1", "-W5", "-I", "red", to).OK(t)
			}
			wantEqual(t, "strategy's differences", fmt.Sprint(c.check(t, host, a)), "[]")
			wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")
		}
		c.Run(t, "ip", "link", "set", "eth0", "nomaster").OK(t)
		wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[eth0: vrf: want red, the kernel has none]")
		c.Run(t, "ip", "link", "del", "red").OK(t)
		wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[red: want a vrf, the kernel has none]")
	}
}

// TestVRFTables: a device is shared by its name, a new one has the first table that none has.
func TestVRFTables(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vrf")
	c := newContainer(t, host, "web")
	var all []Attachment
	for i, name := range []string{"red", "blue", "red"} {
		net := strings.NewReplacer("br0", fmt.Sprint("br", i), "10.1.", fmt.Sprintf("10.%d.", i+1), "fd00:1:", fmt.Sprintf("fd00:%d:", i+1)).Replace(vrfRouted)
		p := planChained(t, VRFPolicy(), net, `{"type": "vrf", "vrfname": "`+name+`"}`, func(r *Request) { r.IfName = fmt.Sprint("eth", i) })
		all = append(all, c.attachChained(t, host, p, prefixes(fmt.Sprintf("10.%d.0.2/24", i+1), fmt.Sprintf("fd00:%d::2/64", i+1)), noRecord))
	}
	if err := c.configure(all...); err != nil {
		t.Fatal(err)
	}
	lines := vrfLines(t, c.Node)
	for _, want := range []string{
		"vrf table 1\n", "vrf table 2\n", "default via 10.1.0.1 dev eth0 table 1\n", "default via 10.2.0.1 dev eth1 table 2\n",
		"default via 10.3.0.1 dev eth2 table 1 metric 101\n",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	for _, a := range all {
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	}
	for _, test := range []struct {
		vrf  VRF
		want string
	}{
		{VRF{Name: "red", Table: 5}, "eth0: vrf: red: is there, with table 1 and not 5"},
		{VRF{Name: "eth1"}, `eth1: a device of type "veth", not a vrf`},
		{VRF{Name: "blue"}, "eth0 is in another device already"},
	} {
		a := all[0]
		a.VRF, a.Configured = &test.vrf, true
		wantError(t, c.configure(a), test.want)
	}
}

// TestVRFGoes: in a namespace that lives on, the device goes with its last interface.
func TestVRFGoes(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vrf")
	c := newNamed(t, host, "web")
	p := planChained(t, VRFPolicy(), vrfRouted, `{"type": "vrf", "vrfname": "red"}`, func(r *Request) { r.Joined = true })
	var records []Object
	a := c.attachChained(t, host, p, lanAddrs(2), func(o Object) error { records = append(records, o); return nil })
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	c.Run(t, "ip", "link", "add", "eth9", "master", "red", "type", "veth").OK(t)
	mine := records[len(records)-1:]
	undo(t, host, mine)
	wantEqual(t, "master", c.Link(t, "eth0").Master, "")
	wantEqual(t, "still used", c.Link(t, "eth9").Master, "red")
	c.Run(t, "ip", "link", "del", "eth9").OK(t)
	undo(t, host, mine)
	if got := netsetuptest.Names(c.Links(t)); strings.Contains(fmt.Sprint(got), "red") {
		t.Errorf("the device is left among %s", got)
	}
}

func TestVRFCommands(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	skipWithout(t, host, "vrf")
	c := newContainer(t, host, "web")
	p := planChained(t, VRFPolicy(), vrfRouted, `{"type": "vrf", "vrfname": "red", "table": 7}`)
	a, err := c.attach(host, p.Plan, lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	replayPolicy(t, host, c.Node, p.policy.Commands(p.Plan, p.conf, a))
	wantEqual(t, "state", vrfLines(t, c.Node), vrfState)
}

// TestVRFMissing is for kernels without.
func TestVRFMissing(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	if host.Run(t, "ip", "link", "add", "probe", "type", "vrf", "table", "1").Code == 0 {
		t.Skip("this kernel has vrf devices")
	}
	c := newContainer(t, host, "web")
	p := planChained(t, VRFPolicy(), vrfRouted, `{"type": "vrf", "vrfname": "red"}`)
	a := c.attachChained(t, host, p, lanAddrs(2), noRecord)
	wantError(t, c.configure(a), "eth0: vrf: red: make: this kernel has no devices of type vrf (CONFIG_NET_VRF)")
	wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[red: want a vrf, the kernel has none]")
}

func TestVRFFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ keys, want string }{
		{`"table": 1`, `lan.conflist: plugins[1].vrfname: missing`},
		{`"vrfname": ""`, `plugins[1].vrfname: missing`},
		{`"vrfname": 5`, `plugins[1].vrfname: a number; a string is wanted`},
		{`"vrfname": "sixteen-letters-"`, `plugins[1].vrfname: "sixteen-letters-": 16 bytes`},
		{`"vrfname": "eth0"`, `plugins[1].vrfname: "eth0": the interface itself`},
		{`"vrfname": "red", "table": -1`, `plugins[1].table: "-1"`},
		{`"vrfname": "red", "table": 4294967296`, `no routing table`},
		{`"vrfName": "red"`, `plugins[1].vrfName: unknown key; did you mean vrfname?`},
	} {
		n := listOf(bridgeNet, `{"type": "vrf", `+test.keys+`}`)
		p := planOf(t, bridgeNet, func(r *Request) { r.Network = n })
		_, err := VRFPolicy().Plan(p, n.Plugins[1])
		wantError(t, err, test.want)
	}
	n := listOf(`{"type": "loopback"}`, `{"type": "vrf", "vrfname": "red"}`)
	_, err := VRFPolicy().Plan(Plan{Request: Request{Network: n, Strategy: "loopback"}}, n.Plugins[1])
	wantError(t, err, "no interface to put there")
	if err := VRFPolicy().Attach(context.Background(), nil, nil, Plan{}, nil, &Attachment{}, noRecord); err != nil {
		t.Error(err)
	}
}
