package netsetup

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestPlanBridge(t *testing.T) {
	t.Parallel()
	p := planOf(t, `{"cniVersion": "1.1.0", "name": "lan", "type": "bridge", "bridge": "br1", "isGateway": true, "mtu": 1400,
		"forceAddress": true, "ipMasq": true, "ipMasqBackend": "nftables", "enabledad": true, "vlan": 0, "macspoofchk": false,
		"capabilities": {"ips": true, "mac": true, "portMappings": false},
		"dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
		"ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254",
			"dataDir": "/var/leases", "resolvConf": "/etc/lan.conf",
			"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1300, "priority": 5}]}}`)
	want := Subnet{
		Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.254"),
		RangeStart: netip.MustParseAddr("10.1.0.10"), RangeEnd: netip.MustParseAddr("10.1.0.20"),
	}
	wantEqual(t, "subnets", fmt.Sprint(p.Subnets), fmt.Sprint([]Subnet{want}))
	wantEqual(t, "words", fmt.Sprintln(p.Bridge, p.MTU, p.UplinkMTU, p.Gateway, p.ForceAddress, p.Masquerade, p.DAD, p.NoIPv6, p.IPAM, p.DataDir, p.ResolvConf),
		"br1 1400 false true true true true true host-local /var/leases /etc/lan.conf\n")
	wantEqual(t, "dns", fmt.Sprint(p.DNS), "{[192.0.2.53]  [example.org] []}")
	a, err := p.attachment(prefixes("10.1.0.10/24"), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "gateways", fmt.Sprint(a.Gateways), "[10.1.0.254]")
	wantEqual(t, "routes", fmt.Sprint(a.Routes), "[{10.9.0.0/16 10.1.0.9 false 1300 5 0 0 0}]")
}

// TestGateways has the gateway inside and on the bridge, by who says it.
func TestGateways(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		plugin, addr, asked string // asked: a gateway that the request wants
		inside, bridge      string
	}{
		"pool":             {`"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}`, "10.1.0.2/24", "", "[10.1.0.1]", "[10.1.0.1/24]"},
		"pool without":     {`"isGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}`, "10.1.0.2/24", "", "[]", "[10.1.0.1/24]"},
		"pool, other":      {`"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}`, "10.1.0.2/24", "10.1.0.254", "[10.1.0.254]", "[10.1.0.1/24]"},
		"no host":          {`"ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}`, "10.1.0.2/24", "", "[10.1.0.1]", "[]"},
		"route's own":      {`"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.7"}]}`, "10.1.0.2/24", "", "[10.1.0.7]", "[10.1.0.1/24]"},
		"static":           {`"isDefaultGateway": true, "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.3"}]}`, "10.1.0.2/24", "", "[10.1.0.3]", "[10.1.0.3/24]"},
		"static, first":    {`"isDefaultGateway": true, "ipam": {"type": "static"}`, "10.1.0.2/24", "", "[10.1.0.1]", "[10.1.0.1/24]"},
		"static, asked":    {`"isDefaultGateway": true, "ipam": {"type": "static"}`, "10.1.0.2/24", "10.1.0.9", "[10.1.0.9]", "[10.1.0.9/24]"},
		"site's bridge":    {`"ipam": {"type": "static"}`, "10.1.0.2/24", "", "[]", "[]"},
		"site's router":    {`"ipam": {"type": "static"}`, "10.1.0.2/24", "10.1.0.9", "[10.1.0.9]", "[]"},
		"IPv6":             {`"isDefaultGateway": true, "ipam": {"type": "host-local", "subnet": "fd00:1::/64"}`, "fd00:1::2/64", "", "[fd00:1::1]", "[fd00:1::1/64]"},
		"IPv6, link-local": {`"isGateway": true, "ipam": {"type": "host-local", "subnet": "fd00:1::/64"}`, "fd00:1::2/64", "fe80::1", "[fe80::1]", "[fd00:1::1/64]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planOf(t, `{"type": "bridge", `+test.plugin+`}`, func(r *Request) {
				if test.asked != "" {
					r.Gateways = []netip.Addr{netip.MustParseAddr(test.asked)}
				}
				if !strings.Contains(test.plugin, "host-local") {
					r.IPs = prefixes(test.addr)
				}
			})
			a, err := p.attachment(prefixes(test.addr), nil)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "inside", fmt.Sprint(a.Gateways), test.inside)
			wantEqual(t, "bridge", fmt.Sprint(gatewayAddrs(p, prefixes(test.addr))), test.bridge)
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	const pool = `"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}`
	for _, test := range []struct {
		plugin string
		change func(*Request)
		want   []string // one line each
	}{
		{`{"type": "bridge", "isGatway": true, "MTU": 5}`, nil, []string{
			"lan.conflist: plugins[0].isGatway: unknown key; did you mean isGateway?",
			"lan.conflist: plugins[0].MTU: unknown key; did you mean mtu?",
		}},
		{`{"type": "bridge", "capabilities": {"portMapings": true, "mac": 1}, "args": [], "runtimeConfig": {"mac": 5}}`, nil, []string{
			"plugins[0].capabilities.portMapings: unknown key; did you mean portMappings?", "plugins[0].capabilities.mac: a number; true or false",
			"plugins[0].args: a list; an object", "plugins[0].runtimeConfig.mac: a number; a string",
		}},
		{`{"type": "bridge", "mtu": "1500", "ipMasq": 1, "bridge": false, "ipam": []}`, nil, []string{
			"plugins[0].mtu: a string; a number is wanted", "plugins[0].ipMasq: a number; true or false", "plugins[0].bridge: true or false; a string", "plugins[0].ipam: a list; an object",
		}},
		{`{"type": "bridge", "bridge": "a/b", "hairpinMode": true, "promiscMode": true, "ipMasqBackend": "iptable", "nsinit": "exec"}`, nil, []string{
			`plugins[0].bridge: "a/b"`, "plugins[0].hairpinMode: excludes promiscMode", `ipMasqBackend: "iptable": unknown; "nftables" or "iptables"; did you mean iptables?`, `nsinit: "exec": a program of its own`,
		}},
		{`{"type": "bridge", "vlan": 4095, "vlanTrunk": [{"id": 0}, {"minID": 5}, {"minID": 7, "maxID": 5}, {"id": 5, "maxId": 7}, 5], "preserveDefaultVlan": 1}`, nil, []string{
			`plugins[0].vlan: "4095": out of range; 0 to 4094`, `vlanTrunk[0].id: "0": out of range; 1 to 4094`, "vlanTrunk[1]: one of minID and maxID without the other",
			"vlanTrunk[2]: minID 7 lies behind maxID 5", "vlanTrunk[3].maxId: unknown key; did you mean maxID?", "vlanTrunk[4]: a number; an object", "preserveDefaultVlan: a number; true or false",
		}},
		{`{"type": "bridge", "bridge": "a123456789012", "vlan": 100, "isGateway": true, "disableContainerInterface": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}`, nil, []string{
			"disableContainerInterface: an interface that stays down has no addresses", "disableContainerInterface: an interface that stays down has no routes",
			`plugins[0].bridge: "a123456789012.100", the gateway's device in VLAN 100: 17 bytes`,
		}},
		{`{"type": "bridge", "ipam": {"subnet": "10.0.0.0/8"}}`, nil, []string{"ipam.type: missing"}},
		{`{"type": "bridge", "ipam": {"type": "host-local"}}`, nil, []string{"ipam.ranges: missing"}},
		{`{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[]]}}`, nil, []string{"ranges[0]: no pool"}},
		{
			`{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.128/25"}, {"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.200"}]]}}`, nil,
			[]string{
				`ranges[0][1].subnet: "10.1.0.128/25": its range 10.1.0.129-10.1.0.254 overlaps 10.1.0.1-10.1.0.254 of 10.1.0.0/24`, `ranges[0][2].subnet: "fd00::/64": of another family than 10.1.0.0/24`,
				`ranges[1][0].subnet: "10.1.0.0/24": its range 10.1.0.200-10.1.0.254 overlaps 10.1.0.1-`, `ranges[1][0].subnet: "10.1.0.0/24": its range 10.1.0.200-10.1.0.254 overlaps 10.1.0.129-`,
			},
		},
		{`{"type": "bridge", "ipam": {"type": "host-local", "rangeEnd": "10.1.0.9", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}`, nil, []string{"ipam.rangeEnd: without a subnet"}},
		{`{"type": "bridge", "ipam": {"type": "static"}}`, nil, []string{"ipam.addresses: missing, and no address is asked for"}},
		{`{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.1/24"}], [{"subnet": "10.1.0.0/33"}], [{"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}], [{"gateway": "x"}]]}}`, nil, []string{
			"ranges[0][0].subnet", "ranges[1][0].subnet", "ranges[2][0].subnet", `ranges[3][0].gateway: "x": an IP address`, "ranges[3][0].subnet: missing",
		}},
		{`{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": "x", "routes": [{"gw": "10.1.0.1"}, {"dst": "10.1/8"}, {"dst": "10.0.0.0/8", "table": -7}, {"dst": "10.0.0.0/8", "table": 7}, {"dst": "10.0.0.0/8", "table": 7},
			{"dst": "10.3.0.1/16"}, {"dst": "10.2.0.0/16", "scope": 253, "gw": "10.1.0.1"}, {"dst": "10.4.0.0/16", "scope": 300}, {"dst": "::/0"}]}}`, nil, []string{
			"dataDir: \"x\": not an absolute path", "routes[0].dst: missing", "routes[1].dst", `routes[2].table: "-7": a whole number`, `routes[4].dst: "10.0.0.0/8": given twice`,
			`routes[5].dst: "10.3.0.1/16": has host bits`, `routes[6].dst: "10.2.0.0/16": scope 253 is that of a route on the link`, `routes[7].dst: "10.4.0.0/16": scope 300 out of range`,
			`routes[8].dst: "::/0": the network gives no IPv6 address`,
		}},
		{`{"type": "bridge", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2"}, {"gateway": "10.1.0.1"}]}}`, nil, []string{
			"addresses[0].address", "addresses[1].address: missing",
		}},
		{`{"type": "bridge", ` + pool + `}`, func(r *Request) {
			r.IPs = append(prefixes("10.1.0.0/24", "10.2.0.2/24", "10.1.0.7/16", "10.1.0.1/24"), netip.PrefixFrom(netip.MustParseAddr("10.1.0.9"), -1), prefixes("10.1.0.9/24")[0])
			r.MAC, r.MTU, r.IfName = "01:00:00:00:00:00", 20, "eth/0"
			r.Gateways = []netip.Addr{netip.MustParseAddr("10.1.0.254"), netip.MustParseAddr("10.9.0.1")}
			r.Routes = []Route{{Dst: netip.MustParsePrefix("10.4.0.1/16")}, {Dst: netip.MustParsePrefix("fd00::/8"), Gateway: netip.MustParseAddr("10.1.0.1")}}
		}, []string{
			`ip: "10.1.0.0/24": the address of network`, `ip: "10.2.0.2/24": outside of the network's subnets`,
			`ip: "10.1.0.7/16": its subnet is 10.1.0.0/24`, `ip: "10.1.0.1/24": the network's gateway has it`, `ip: "10.1.0.9/24": given twice`,
			`mac: "01:00:00:00:00:00"`, `mtu: "20"`, `interface name: "eth/0"`, `gateway: "10.9.0.1": outside of`, `gateway: "10.9.0.1": the second`,
			`route: "10.4.0.1/16": has host bits`, `route: "fd00::/8": gateway 10.1.0.1 is of another family`,
		}},
		{`{"type": "bridge"}`, func(r *Request) { r.IPs = prefixes("10.1.0.2/24") }, []string{`ip: "10.1.0.2/24": the network gives no addresses`}},
		{`{"type": "bridge", "mtu": 1000, "ipam": {"type": "host-local", "subnet": "fd00::/64"}}`, nil, []string{`lan.conflist: plugins[0].mtu: "1000": too small for IPv6`}},
		{`{"type": "ptp", "bridge": "br0", ` + pool + `}`, nil, []string{"plugins[0].bridge: unknown key"}},
		{`{"type": "loopback", "mtu": 20, ` + pool + `}`, func(r *Request) { r.IPs = prefixes("10.1.0.2/24") }, []string{
			"loopback has its own addresses", `mtu: "20"`, `interface name: "eth0": loopback is called lo`, `ip: "10.1.0.2/24": a network of kind loopback takes none`,
		}},
	} {
		n := networkOf(test.plugin)
		r := Request{Strategy: n.Plugins[0].Type, IfName: "eth0", Network: n, Source: "--network lan"}
		if test.change != nil {
			test.change(&r)
		}
		s, err := StrategyOf(r.Strategy)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Plan(r)
		wantFaults(t, err, test.want...)
	}
}

// wantFaults wants one line for each of want and no more.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	wantError(t, err, want...)
	if got := strings.Count(fmt.Sprint(err), "\n") + 1; got != len(want) {
		t.Errorf("%d faults, want %d:\n%v", got, len(want), err)
	}
}

func TestPlanNoNetwork(t *testing.T) {
	t.Parallel()
	_, err := bridge{}.Plan(Request{Strategy: "bridge", Source: "--network bridge"})
	wantError(t, err, "--network bridge: no network given")
	_, err = join{}.Plan(Request{Strategy: "netns", Source: "--network ns:", MAC: "02:00:00:00:00:01", IfName: "eth0", MTU: 1500})
	wantError(t, err, "no namespace given", "mac", "interface name", "mtu")
	_, err = StrategyOf("vxlan")
	wantError(t, err, `network type "vxlan": unknown; nsinit has bridge, `)
}

func TestStrategies(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(Strategies()) {
		t.Errorf("%v are not sorted", Strategies())
	}
	for _, name := range Strategies() {
		if _, err := StrategyOf(name); err != nil {
			t.Error(err)
		}
	}
}

func TestDeriveMAC(t *testing.T) {
	t.Parallel()
	wantEqual(t, "IPv4", deriveMAC(prefixes("fd00::1/64", "10.1.2.3/24")).String(), "0a:58:0a:01:02:03")
	seen := make(map[string]bool)
	for i := range 4096 {
		mac := deriveMAC(prefixes(fmt.Sprintf("fd00:1::%x/64", i+1)))
		if mac[0]&3 != 2 || seen[mac.String()] {
			t.Fatalf("MAC %s of fd00:1::%x", mac, i+1)
		}
		seen[mac.String()] = true
	}
	if a, b := deriveMAC(nil), deriveMAC(nil); a.String() == b.String() || a[0]&3 != 2 {
		t.Errorf("without addresses: %s, %s", a, b)
	}
}

func TestHostNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		name := hostIfName()
		if err := CheckIfName(name); err != nil || seen[name] || len(name) != 12 {
			t.Fatalf("name %q: %v", name, err)
		}
		seen[name] = true
	}
	long := hostAlias(pair{owner: strings.Repeat("ü", 200), ifName: "eth0"})
	if len(long) > 255 || !strings.HasPrefix(long, "nsinit ü") || strings.ToValidUTF8(long, "") != long {
		t.Errorf("alias of %d bytes: %q", len(long), long)
	}
	if alias := bridgeAlias(strings.Repeat("n", 300)); len(alias) > 255 {
		t.Errorf("alias of %d bytes", len(alias))
	}
}

// FuzzPlan plans networks of any text: no panic, and a plan or a fault.
func FuzzPlan(f *testing.F) {
	for _, s := range []string{
		bridgeNet, ptpNet, `{"type": "loopback", "mtu": 1}`, `{"type":"bridge","ipam":{"type":"static","addresses":[{"address":"10.1.0.2/24"}]}}`,
		`{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"::/0"}],[{"subnet":"255.255.255.255/32"}]]}}`,
		`{"type":"macvlan","master":"eth1","mode":"vepa","bcqueuelen":1,"mac":"02:00:00:00:00:01"}`, `{"type":"vlan","master":"eth1","vlanId":7}`,
		`{"type":"ipvlan","prevResult":{"interfaces":[{"name":"eth1"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}}`,
		`{"type":"tap","owner":1000,"group":4294967295,"multiQueue":true,"selinuxContext":"a:b:c:d","bridge":"br0"}`,
	} {
		f.Add([]byte(s), "10.1.0.2/24")
	}
	f.Fuzz(func(t *testing.T, raw []byte, addr string) {
		for _, name := range Strategies() {
			s, err := StrategyOf(name)
			if err != nil {
				t.Fatal(err)
			}
			r := Request{Strategy: name, Network: &Network{Name: "lan", Plugins: []Plugin{{Type: name, Raw: raw}}}}
			if a, err := netip.ParsePrefix(addr); err == nil {
				r.IPs = []netip.Prefix{a}
			}
			p, err := s.Plan(r)
			if err != nil {
				continue
			}
			addrs := slices.Clone(p.IPs)
			for _, s := range p.Subnets {
				addrs = append(addrs, netip.PrefixFrom(s.Prefix.Addr().Next(), s.Prefix.Bits()))
			}
			_, _ = p.attachment(addrs, nil)
			_ = gatewayAddrs(p, addrs)
			_ = ptpRoutes(p, addrs)
		}
	})
}

// FuzzMessages reads any bytes as the kernel's answers.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("\x00\x00\x01\x00\x02\x00\x00\x00\x43\x10\x01\x00\x00\x00\x00\x00\x08\x00\x03\x00br0\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = parseLink(b)
		_, _ = parseAddr(b)
		_ = parseRoutes(b)
		_ = vlanList(parseVLANs(b))
		_ = parseHops(b)
		for _, kind := range []uint16{2, 3} {
			for _, flags := range []uint16{0, 0x100, 0x200, 0x300} {
				_ = ended(kind, flags, b)
			}
		}
	})
}
