package netsetup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const tuningAll = `{"type": "tuning", "mac": "02:11:22:33:44:55", "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
	"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/tcp_rmem": "4096 90000 100000", "net.core.somaxconn": "321"}}`

func wantTuned(t *testing.T, c testContainer) {
	t.Helper()
	eth := tunedLink(t, c.Node)
	wantEqual(t, "MAC", eth.Address, "02:11:22:33:44:55")
	wantEqual(t, "MTU", eth.MTU, 1400)
	wantEqual(t, "transmit queue", eth.TxQLen, 77)
	wantEqual(t, "flags", fmt.Sprint(slices.Contains(eth.Flags, "PROMISC"), slices.Contains(eth.Flags, "ALLMULTI")), "true true")
	wantEqual(t, "arp_filter", sysctl(t, c.Node, "ipv4/conf/eth0/arp_filter"), "1")
	wantEqual(t, "tcp_rmem", strings.Join(strings.Fields(sysctl(t, c.Node, "ipv4/tcp_rmem")), " "), "4096 90000 100000")
	wantEqual(t, "somaxconn", sysctl(t, c.Node, "core/somaxconn"), "321")
}

type tunedLinkJSON struct {
	Address, IfName string
	MTU, TxQLen     int
	Flags           []string
}

func tunedLink(t *testing.T, n *netsetuptest.Node) tunedLinkJSON {
	t.Helper()
	return netsetuptest.Decode[[]tunedLinkJSON](t, n.Run(t, "ip", "-j", "link", "show", "eth0").OK(t))[0]
}

func TestTuning(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, TuningPolicy(), bridgeNet, tuningAll)
	a := c.startChained(t, host, p, lanAddrs(2))
	wantTuned(t, c)
	wantUsable(t, c.Node, "eth0", "10.1.0.1", "fd00:1::1")
	wantEqual(t, "result's MAC", a.MAC, "02:11:22:33:44:55")
	wantEqual(t, "host's end keeps its MTU", host.Link(t, a.HostIf).MTU, 1500)
	wantEqual(t, "strategy's differences", fmt.Sprint(c.check(t, host, a)), "[]")
	wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")

	for _, change := range []struct{ command, want string }{
		{"ip link set eth0 mtu 1300", "eth0: MTU: want 1400, the kernel has 1300"},
		{"ip link set eth0 promisc off", "eth0: promiscuous: want on, the kernel has off"},
		{"ip link set eth0 allmulticast off", "eth0: all multicast: want on, the kernel has off"},
		{"ip link set eth0 txqueuelen 9", "eth0: transmit queue: want 77, the kernel has 9"},
		{"ip link set eth0 address 02:00:00:00:00:01", "eth0: MAC: want 02:11:22:33:44:55, the kernel has 02:00:00:00:00:01"},
		{"sysctl -w net.core.somaxconn=1", "sysctl net/core/somaxconn: want 321, the kernel has 1"},
	} {
		c.Run(t, "sh", "-c", change.command).OK(t)
		if got := fmt.Sprint(c.checkPolicy(t, host, p, a)); !strings.Contains(got, change.want) {
			t.Errorf("after %s: %s", change.command, got)
		}
	}
	// A second time puts it right again.
	if err := c.inside(func(in *Inside) error { return ConfigurePolicies(in, a) }); err != nil {
		t.Fatal(err)
	}
	wantTuned(t, c)
}

// TestTuningBeforeUp has a router that advertises at once: what forbids to hear it must be there before.
func TestTuningBeforeUp(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, TuningPolicy(), `{"type": "bridge", "bridge": "br0", "ipam": {}}`,
		`{"type": "tuning", "sysctl": {"net.ipv6.conf.IFNAME.disable_ipv6": "1", "net.ipv6.conf.IFNAME.accept_ra": "0"}}`)
	c.startChained(t, host, p, nil)
	wantEqual(t, "addresses", len(c.Link(t, "eth0").AddrInfo), 0)
	wantEqual(t, "accept_ra", sysctl(t, c.Node, "ipv6/conf/eth0/accept_ra"), "0")
}

// TestTuningTakesIPv6: as behind the CNI plugin, the addresses are gone, whenever they came.
func TestTuningTakesIPv6(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, TuningPolicy(), bridgeNet, `{"type": "tuning", "sysctl": {"net.ipv6.conf.IFNAME.disable_ipv6": "1"}}`)
	c.startChained(t, host, p, lanAddrs(2))
	wantEqual(t, "IPv6 addresses", len(c.Link(t, "eth0").Addrs(6)), 0)
	wantEqual(t, "disable_ipv6", sysctl(t, c.Node, "ipv6/conf/eth0/disable_ipv6"), "1")
	wantUsable(t, c.Node, "eth0", "10.1.0.1")
}

// TestTuningGivesBack: in a namespace that lives on, what was before comes back.
func TestTuningGivesBack(t *testing.T) {
	t.Parallel()
	for _, configured := range []bool{false, true} {
		host := netsetuptest.NewHost(t)
		c := newNamed(t, host, "web")
		p := planChained(t, TuningPolicy(), bridgeNet, tuningAll, func(r *Request) { r.Joined = !configured })
		a, err := c.attach(host, p.Plan, lanAddrs(2), noRecord)
		if err != nil {
			t.Fatal(err)
		}
		if configured { // as a CNI plugin behind another
			if err := c.configure(a); err != nil {
				t.Fatal(err)
			}
			a.Configured = true
		}
		before := tunedLink(t, c.Node)
		somaxconn := sysctl(t, c.Node, "core/somaxconn")
		var records []Object
		c.attachPolicy(t, host, p, &a, func(o Object) error { records = append(records, o); return nil })
		if err := c.configure(a); err != nil {
			t.Fatal(err)
		}
		wantTuned(t, c)
		wantEqual(t, "records", len(records), 1)
		undo(t, host, records)
		after := tunedLink(t, c.Node)
		wantEqual(t, "MAC, MTU, queue", fmt.Sprint(after.Address, after.MTU, after.TxQLen), fmt.Sprint(before.Address, before.MTU, before.TxQLen))
		wantEqual(t, "promiscuous", slices.Contains(after.Flags, "PROMISC"), false)
		wantEqual(t, "somaxconn", sysctl(t, c.Node, "core/somaxconn"), somaxconn)
		wantEqual(t, "arp_filter", sysctl(t, c.Node, "ipv4/conf/eth0/arp_filter"), "0")

		// Another interface under its name isn't touched.
		c.Run(t, "sh", "-c", "ip link del eth0; ip link add eth0 mtu 1234 type veth peer name eth9").OK(t)
		undo(t, host, records)
		wantEqual(t, "MTU of another", tunedLink(t, c.Node).MTU, 1234)
		for i := range records {
			records[i].Name = "/run/netns/gone"
		}
		undo(t, host, records)
	}
}

func TestTuningCommands(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, TuningPolicy(), bridgeNet, tuningAll)
	a, err := c.attach(host, p.Plan, lanAddrs(2), noRecord)
	if err != nil {
		t.Fatal(err)
	}
	replayPolicy(t, host, c.Node, p.policy.Commands(p.Plan, p.conf, a))
	wantTuned(t, c)
}

// TestTuningSources has the later of each two say what counts.
func TestTuningSources(t *testing.T) {
	t.Parallel()
	args := func(mac string) func(*Request) {
		return func(r *Request) { r.Runtime.Args = map[string]string{"MAC": mac} }
	}
	for _, test := range []struct {
		plugin string
		change []func(*Request)
		want   string
	}{
		{`{"type": "tuning"}`, nil, ""},
		{`{"type": "tuning", "mac": "02:00:00:00:00:01"}`, nil, "02:00:00:00:00:01"},
		{`{"type": "tuning", "mac": "02-00-00-00-00-0A"}`, nil, "02:00:00:00:00:0a"},
		{`{"type": "tuning", "mac": "02:00:00:00:00:01"}`, []func(*Request){args("02:00:00:00:00:02")}, "02:00:00:00:00:02"},
		{`{"type": "tuning", "mac": "02:00:00:00:00:01"}`, []func(*Request){args("02:00:00:00:00:02"), func(r *Request) { r.MAC = "02:00:00:00:00:03" }}, "02:00:00:00:00:03"},
		{
			`{"type": "tuning", "runtimeConfig": {"mac": "02:00:00:00:00:04"}, "mac": "02:00:00:00:00:01"}`,
			[]func(*Request){args("02:00:00:00:00:02")},
			"02:00:00:00:00:04",
		},
		{
			`{"type": "tuning", "runtimeConfig": {"mac": "02:00:00:00:00:04"}, "args": {"labels": [], "cni": {"ips": [], "mac": "02:00:00:00:00:05"}}}`,
			nil, "02:00:00:00:00:05",
		},
	} {
		p := planChained(t, TuningPolicy(), bridgeNet, test.plugin, test.change...)
		conf, _ := p.conf.(*Tuning)
		wantEqual(t, test.plugin, conf.MAC, test.want)
	}
	p := planChained(t, TuningPolicy(), bridgeNet, `{"type": "tuning", "promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 5,
		"sysctl": {"net.core.somaxconn": "1"},
		"args": {"cni": {"promisc": false, "mtu": 1300, "allmulti": false, "txQLen": 0, "sysctl": {"net.core.somaxconn": "2"}}}}`)
	conf, _ := p.conf.(*Tuning)
	wantEqual(t, "args.cni", fmt.Sprint(conf.Promisc, conf.MTU, *conf.AllMulti, *conf.TxQLen, conf.Sysctls[len(conf.Sysctls)-1]), "<nil> 1300 false 0 {net/core/somaxconn 2}")
}

func TestTuningFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ keys, want string }{
		{`"mac": "02:00"`, `lan.conflist: plugins[1].mac: "02:00": not a MAC address`},
		{`"mac": "01:00:00:00:00:01"`, `multicast`},
		{`"mac": 5`, `plugins[1].mac: a number; a string is wanted`},
		{`"mtu": 67`, `plugins[1].mtu: "67": out of range`},
		{`"mtu": 1000`, `plugins[1].mtu: "1000": too small for IPv6`},
		{`"mtu": -1`, `plugins[1].mtu`},
		{`"mtu": "1500"`, `plugins[1].mtu: a string; a number is wanted`},
		{`"promisc": "yes"`, `plugins[1].promisc: a string; true or false is wanted`},
		{`"allmulti": 1`, `plugins[1].allmulti: a number; true or false is wanted`},
		{`"txQLen": 2147483648`, `plugins[1].txQLen: "2147483648": out of range`},
		{`"txqlen": 1`, `plugins[1].txqlen: unknown key; did you mean txQLen?`},
		{`"sysctl": []`, `plugins[1].sysctl: a list; an object is wanted`},
		{`"sysctl": {"net.core.somaxconn": 5}`, `plugins[1].sysctl.net.core.somaxconn: a number; a string is wanted`},
		{`"sysctl": {"kernel.hostname": "x"}`, `plugins[1].sysctl: "kernel.hostname": no setting of the network`},
		{`"sysctl": {"net/../kernel/hostname": "x"}`, `plugins[1].sysctl: "net/../kernel/hostname": has an empty part`},
		{`"sysctl": {"net.": "x"}`, `has an empty part`},
		{`"sysctl": {"": "x"}`, `no setting of the network`},
		{`"sysctl": {"net.core.somaxconn": "1\n2"}`, `several lines`},
		{`"args": {"cni": {"mtu": "x"}}`, `plugins[1].args.cni.mtu: a string; a number is wanted`},
		{`"runtimeConfig": {"mac": []}`, `plugins[1].runtimeConfig.mac: a list; a string is wanted`},
	} {
		n := listOf(bridgeNet, `{"type": "tuning", `+test.keys+`}`)
		p := planOf(t, bridgeNet, func(r *Request) { r.Network = n })
		_, err := TuningPolicy().Plan(p, n.Plugins[1])
		wantError(t, err, test.want)
	}
}

// TestTuningAllowlist: the machine's administrator says which settings networks may change.
func TestTuningAllowlist(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	host.OwnEtc(t)
	host.Run(t, "sh", "-c", `mkdir -p /etc/cni/tuning; printf '%s\n' '^net.ipv4.conf.IFNAME.[a-z_]*$' '' ' ^net\.core\.so(maxconn|x)$ ' >/etc/cni/tuning/allowlist.conf`).OK(t)
	plan := func(key string) error {
		return host.DoInside(func() error {
			n := listOf(bridgeNet, `{"type": "tuning", "sysctl": {"`+key+`": "1"}}`)
			_, err := TuningPolicy().Plan(planOf(t, bridgeNet, func(r *Request) { r.Network = n }), n.Plugins[1])
			return err
		})
	}
	for _, key := range []string{"net.ipv4.conf.IFNAME.arp_filter", "net.core.somaxconn"} {
		if err := plan(key); err != nil {
			t.Error(err)
		}
	}
	wantError(t, plan("net.ipv4.conf.all.arp_filter"), `"net.ipv4.conf.all.arp_filter": not among what /etc/cni/tuning/allowlist.conf allows`)
	host.Run(t, "sh", "-c", `echo '\d{3}' >>/etc/cni/tuning/allowlist.conf`).OK(t)
	wantError(t, plan("net.core.somaxconn"), `/etc/cni/tuning/allowlist.conf:4: "\\d{3}": \d is not understood here`)
	host.Run(t, "umount", "/etc").OK(t)
}

// FuzzPattern holds the patterns that we understand to what the library says of them.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{
		`^net.ipv4.conf.IFNAME.[a-z_]*$`, `a|b`, `(ab|c)+d?`, `[^a-c]x`, `()*`, `(a*)*b`, `(|a)+$`, `[]a]`, `[a-]`, `x**`, `\.`, `(a|ab)(c|bcd)$`, `^*`, `[^]a]`, `$a`, `(a?)+b`,
	} {
		f.Add(s, "net.ipv4.conf.IFNAME.arp_filter")
		f.Add(s, "abcd")
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		if len(text) > 12 && !strings.HasPrefix(text, "^net") || len(key) > 40 {
			return // backtracking takes its time
		}
		p, err := parsePattern(text)
		if err != nil || strings.ToValidUTF8(text+key, "") != text+key {
			return
		}
		want, err := regexp.MatchString(text, key)
		if err != nil {
			return // refused there: ours may take it, but nothing else than it says
		}
		if got := p.in([]rune(key)); got != want {
			t.Errorf("%q in %q: %v, want %v", text, key, got, want)
		}
	})
}
