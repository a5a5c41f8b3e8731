package netsetup

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseFlag(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := writeFile(t, dir, "a.conflist", goodList)
	odd := writeFile(t, dir, "o:dd=x/b.conflist", goodList)
	tests := []struct{ flag, want string }{
		{"none", "none"},
		{"host", "host"},
		{"bridge", "bridge"},
		{"ptp", "ptp"},
		{"ns:/run/netns/a:b", "netns path=/run/netns/a:b"},
		{"container:c1", "container path=c1"},
		{"bridge:ip=10.1.0.9", "bridge ips=[10.1.0.9]"},
		{"bridge:mtu=1400,mac=02:00:00:00:00:0A,interface_name=net1", "bridge mtu=1400 mac=02:00:00:00:00:0a if=net1"},
		{"bridge:route=10.9.0.0/16@10.1.0.7,route=fd09::/64", "bridge routes=[10.9.0.0/16@10.1.0.7 fd09::/64@invalid IP]"},
		{
			"bridge:ip=10.1.0.2/24,ip=fd00::2/64,gateway=10.1.0.1",
			`bridge net=bridge-838772b8 ips=[10.1.0.2/24 fd00::2/64] gw=[10.1.0.1] own {"bridge":"nsi-838772b8","ipMasq":true,"ipam":{"type":"static"},"isDefaultGateway":true,"isGateway":true,"type":"bridge"}`,
		},
		{
			"bridge:ip6=fd00::7/64,ip=10.1.0.3/24",
			`bridge net=bridge-838772b8 ips=[fd00::7/64 10.1.0.3/24] own {"bridge":"nsi-838772b8","ipMasq":true,"ipam":{"type":"static"},"isDefaultGateway":true,"isGateway":true,"type":"bridge"}`,
		},
		{"bridge:bridge=br0", `bridge net=bridge-br0 {"bridge":"br0","type":"bridge"}`},
		{"bridge:bridge=br+0", `bridge net=bridge-21e2a53e {"bridge":"br+0","type":"bridge"}`},
		{
			"bridge:bridge=br0,ip=10.1.0.2/24,gateway=10.1.0.1",
			`bridge net=bridge-br0 ips=[10.1.0.2/24] gw=[10.1.0.1] {"bridge":"br0","ipam":{"type":"static"},"type":"bridge"}`,
		},
		{"ptp:ip=10.1.0.2/24", `ptp net=ptp-838772b8 ips=[10.1.0.2/24] own {"ipMasq":true,"ipam":{"routes":[{"dst":"0.0.0.0/0"}],"type":"static"},"type":"ptp"}`},
		{"macvlan", `macvlan net=macvlan {"type":"macvlan"}`},
		{"macvlan:parent=eth1,mode=vepa", `macvlan net=macvlan-eth1 {"master":"eth1","mode":"vepa","type":"macvlan"}`},
		{"macvlan:parent=a+b,mtu=1400", `macvlan net=macvlan-dd9455f6 mtu=1400 {"master":"a+b","type":"macvlan"}`},
		{"ipvlan:parent=eth1,ip=10.1.0.2/24,gateway=10.1.0.1", `ipvlan net=ipvlan-eth1 ips=[10.1.0.2/24] gw=[10.1.0.1] {"ipam":{"type":"static"},"master":"eth1","type":"ipvlan"}`},
		{"vlan:parent=eth1,vlan=100,ip=10.1.0.2/24", `vlan net=vlan-eth1.100 ips=[10.1.0.2/24] {"ipam":{"type":"static"},"master":"eth1","type":"vlan","vlanId":100}`},
		{"dummy:ip=10.1.0.2/32", `dummy net=dummy ips=[10.1.0.2/32] {"ipam":{"type":"static"},"type":"dummy"}`},
		{"tap:owner=1000,group=0,multi_queue=true,bridge=br0", `tap net=tap {"bridge":"br0","group":0,"multiQueue":true,"owner":1000,"type":"tap"}`},
		{"lan", "bridge net=lan"},
		{"lan:ip=10.1.0.9,interface_name=e", "bridge net=lan ips=[10.1.0.9] if=e"},
		{path, "bridge net=lan"},
		{path + ":mac=02:00:00:00:00:01", "bridge net=lan mac=02:00:00:00:00:01"},
		{path + ":mtu=1400,ip=fd00::9", "bridge net=lan mtu=1400 ips=[fd00::9]"},
		{odd, "bridge net=lan"},
	}
	for _, tt := range tests {
		r, err := ParseFlag(tt.flag, []string{dir})
		if err != nil {
			t.Errorf("%s: %v", tt.flag, err)
			continue
		}
		if got := describeRequest(r, dir); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.flag, got, tt.want)
		}
		if r.Source != "--network "+tt.flag {
			t.Errorf("source %q", r.Source)
		}
	}
}

// describeRequest writes what r has in one line.
func describeRequest(r Request, dir string) string {
	s := r.Strategy
	if r.Network != nil {
		s += " net=" + r.Network.Name
	}
	if r.Path != "" {
		s += " path=" + r.Path
	}
	if r.MTU != 0 {
		s += fmt.Sprint(" mtu=", r.MTU)
	}
	if r.MAC != "" {
		s += " mac=" + r.MAC
	}
	if len(r.IPs) > 0 {
		var ips []string
		for _, p := range r.IPs {
			if p.Bits() < 0 {
				ips = append(ips, p.Addr().String())
			} else {
				ips = append(ips, p.String())
			}
		}
		s += fmt.Sprint(" ips=", ips)
	}
	if len(r.Gateways) > 0 {
		s += fmt.Sprint(" gw=", r.Gateways)
	}
	if r.IfName != "" {
		s += " if=" + r.IfName
	}
	if len(r.Routes) > 0 {
		var routes []string
		for _, x := range r.Routes {
			routes = append(routes, x.Dst.String()+"@"+x.Gateway.String())
		}
		s += fmt.Sprint(" routes=", routes)
	}
	if OwnSubnet(r) {
		s += " own"
	}
	if r.Network != nil && !strings.HasPrefix(r.Network.Source, dir) {
		s += " " + string(r.Network.Plugins[0].Raw)
	}
	return s
}

func TestParseFlagFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "a.conflist", goodList)
	check := func(s string) error { _, err := ParseFlag(s, []string{dir}); return err }
	checkFaults(t, check, []faultCase{
		{"", "empty; bridge, ptp, macvlan, ipvlan, vlan, dummy, tap, none, host, ns:PATH, container:ID"},
		{"birdge", "not found in " + dir + "; there: lan; or bridge, ptp, macvlan, ipvlan, vlan, dummy, tap, none, host, ns:PATH, container:ID, or a network's NAME or FILE; did you mean bridge?"},
		{"lna", "did you mean lan?"},
		{"slirp4netns", "not supported yet"},
		{"pasta", "not supported yet"},
		{"Bridge", "did you mean bridge?"},
		{"bridge ", "not allowed"},
		{"bridge\x1b[2J", "control character 0x1b"},
		{"br\xffidge", "not UTF-8"},
		{"bridge:", "nothing behind the colon; bridge:ip=10.1.0.2/24"},
		{":ip=10.1.0.2", "no word in front of the colon"},
		{"none:ip=10.1.0.2", "takes no options; write none alone"},
		{"host:x", "takes no options; write host alone"},
		{"ns", "nothing to join; ns:/run/netns/NAME"},
		{"ns:", "nothing behind the colon; ns:/run/netns/NAME"},
		{"ns:run/netns/x", "not an absolute path"},
		{"container", "nothing to join; container:ID"},
		{"container:/x", "not an id"},
		{"bridge:mtu", `option "mtu": not KEY=VALUE; did you mean mtu?; as bridge:ip=`},
		{"bridge:mtu=", `option "mtu=": not KEY=VALUE`},
		{"bridge:,mtu=1400", `option "": not KEY=VALUE`},
		{"bridge:mtu=1400,", `option "": not KEY=VALUE`},
		{"bridge:mut=1400", `option "mut": unknown; did you mean mtu?; there are bridge, gateway, interface_name, ip, ip6, mac, mtu, route`},
		{"bridge:MTU=1400", `did you mean mtu?`},
		{"bridge:alias=x", "option alias: not supported yet"},
		{"bridge:mtu=9", `mtu: "9": out of range; 68 to 65535`},
		{"bridge:mtu=0", "not a number of bytes"},
		{"bridge:mtu=1e3", "not a number of bytes"},
		{"bridge:mtu=4294967297", "out of range"},
		{"bridge:mtu=-1", "out of range"},
		{"bridge:mtu=99999999999999999999", "not a number of bytes"},
		{"bridge:mtu=1400,mtu=1500", `option "mtu": given twice`},
		{"bridge:mtu=1000,ip=fd00::2/64", `mtu: "1000": too small for IPv6`},
		{"bridge:mac=xx", `mac: "xx": not a MAC address`},
		{"bridge:mac=01:00:5e:00:00:01", "multicast"},
		{"bridge:interface_name=a%d", `interface_name: "a%d": '%' is not allowed`},
		{"bridge:interface_name=1234567890123456", "16 bytes"},
		{"bridge:bridge=all", `bridge: "all":`},
		{"bridge:bridge=a/b", "not allowed"},
		{"bridge:parent=eth1", "option parent: one of macvlan's and ipvlan's; here there are bridge, gateway"},
		{"macvlan:bridge=br0", `option "bridge": unknown; there are gateway, interface_name, ip, ip6, mac, mode, mtu, parent, route`},
		{"macvlan:mode=brdige", `mode: "brdige": unknown; did you mean bridge?; one of bridge, private, vepa, passthru`},
		{"macvlan:mode=l2", `mode: "l2": unknown; one of bridge`},
		{"macvlan:prent=eth1", `option "prent": unknown; did you mean parent?`},
		{"macvlan:parent=eth/1", `parent: "eth/1": '/' is not allowed`},
		{"macvlan:parent=lo", `parent: "lo": the loopback device carries no other`},
		{"macvlan:parent=eth1,parent=eth2", `option "parent": given twice`},
		{"macvlan:ip=10.1.0.2", `ip: "10.1.0.2": no prefix length, and macvlan has no pool; write ip=10.1.0.2/24`},
		{"macvlan:", "nothing behind the colon; macvlan:parent=eth1,ip=10.1.0.2/24"},
		{"ipvlan:mode=bridge", `mode: "bridge": unknown; one of l2, l3, l3s`},
		{"vlan:vlan=4095", `vlan: "4095": not a number from 0 to 4094`},
		{"vlan:vlan=x", `vlan: "x": not a number`},
		{"vlan:mode=l2", "option mode: one of macvlan's"},
		{"tap:owner=root", `owner: "root": not a number from 0 to 4294967294`},
		{"tap:group=-1", `group: "-1": not a number`},
		{"tap:multi_queue=yes", `multi_queue: "yes": true or false is wanted`},
		{"dummy:parent=eth1", "option parent: one of macvlan's"},
		{"lan:bridge=br0", "the network names its bridge"},
		{"ptp:bridge=br0", "option bridge"},
		{"bridge:ip=10.1.0.2/33", `ip: "10.1.0.2/33": not an address; as ip=10.1.0.2/24`},
		{"bridge:ip=10.1.0", "not an address"},
		{"bridge:ip=010.1.0.2", "not an address"},
		{"bridge:ip=10.1.0.0/24", "the address of network"},
		{"bridge:ip=10.1.0.255/24", "the broadcast address"},
		{"bridge:ip=224.0.0.1", "multicast"},
		{"bridge:ip=fe80::1%eth0", "has a zone"},
		{"bridge:ip6=10.1.0.2", "not an IPv6 address; write ip=10.1.0.2"},
		{"bridge:ip=10.1.0.2/24,ip=10.1.0.2/24", "given twice"},
		{"bridge:ip=10.1.0.2/24,ip=10.1.0.3", "one with a prefix length and one without"},
		{"bridge:bridge=br0,ip=10.1.0.2", `no prefix length, and bridge br0 has no pool; write ip=10.1.0.2/24`},
		{"bridge:ip=10.1.0.2/24,gateway=10.2.0.1", `gateway: "10.2.0.1": outside of 10.1.0.0/24`},
		{"bridge:ip=10.1.0.2/24,gateway=10.1.0.2", "the interface's own address"},
		{"bridge:ip=10.1.0.2/24,gateway=10.1.0.1,gateway=10.1.0.3", "a second one of its family, beside 10.1.0.1"},
		{"bridge:gateway=x", `gateway: "x": not an address`},
		{"bridge:route=10.9.0.0", "not a destination"},
		{"bridge:route=10.9.0.1/16", "has host bits; write 10.9.0.0/16"},
		{"bridge:route=10.9.0.0/16@x", `"x" is no gateway`},
		{"bridge:route=10.9.0.0/16@fd00::1", "of the other family"},
		{"bridge:route=10.9.0.0/16,route=10.9.0.0/16@10.1.0.1", "given twice"},
		{"/nonexistent/x.conflist", "no such file"},
		{"./" + strings.Repeat("x", 300), "file name too long"},
	})
	if _, err := ParseFlag("bridge:mtu=9,mac=xx,ip=10.1.0.0/24", nil); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not all faults at once: %v", err)
	}
}

func FuzzParseFlag(f *testing.F) {
	for _, s := range []string{
		"macvlan:parent=eth1,mode=bridge", "vlan:parent=eth1,vlan=7,ip=10.1.0.2/24", "tap:owner=1,multi_queue=true",
		"bridge", "bridge:ip=10.1.0.2/24,gateway=10.1.0.1,mtu=1400,mac=02:00:00:00:00:01,interface_name=eth0",
		"ptp:ip=fd00::2/64", "ns:/x", "container:c", "none", "lan:ip=10.1.0.9", "./x:ip=::1", "bridge:route=0.0.0.0/0@10.1.0.1", ":", "a:b=c",
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	writeFile(f, dir, "a.conflist", goodList)
	f.Fuzz(func(t *testing.T, value string) {
		if strings.Contains(value, "/") { // no reading of files that the fuzzer names
			value = strings.ReplaceAll(value, "./", "")
			if strings.HasPrefix(value, "/") {
				value = filepath.Join("/nonexistent", value)
			}
		}
		r, err := ParseFlag(value, []string{dir})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\x1b") || !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		if r.Strategy == "" || r.IfName != "" && CheckIfName(r.IfName) != nil || CheckMTU(r.MTU, false) != nil {
			t.Errorf("%q: %+v", value, r)
		}
		for _, p := range r.IPs {
			if CheckAddress(p) != nil {
				t.Errorf("%q: address %v", value, p)
			}
		}
		if r.Network != nil && r.Network.Source == r.Source {
			if _, err := (bridge{}).Plan(r); r.Strategy == "bridge" && err != nil {
				t.Errorf("%q: the network built for it has faults: %v", value, err)
			}
			s, _ := StrategyOf(r.Strategy)
			if _, err := s.Plan(r); err != nil && strings.Contains(err.Error(), "plugins[0]") {
				t.Errorf("%q: a fault of the flag is told as one of a file: %v", value, err)
			}
		}
	})
}

func TestPlanAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := func(name, subnet string) string {
		return strings.NewReplacer("lan", name, "br0", "br-"+name, "10.1.0.0/24", subnet).Replace(
			`{"cniVersion":"1.1.0","name":"lan","plugins":[{"type":"bridge","bridge":"br0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]]}}]}`)
	}
	writeFile(t, dir, "a.conflist", list("one", "10.1.0.0/24"))
	writeFile(t, dir, "b.conflist", list("two", "10.2.0.0/24"))
	writeFile(t, dir, "c.conflist", list("wide", "10.0.0.0/8"))
	tests := []struct{ flags, names, fault string }{
		{"", "", ""},
		{"one", "eth0", ""},
		{"one two", "eth0 eth1", ""},
		{"one one", "eth0 eth1", ""},
		{"one two:interface_name=eth0", "eth1 eth0", ""},
		{"one:interface_name=x two", "x eth0", ""},
		{"ns:/run/netns/x", "", ""},
		{"one:interface_name=x two:interface_name=x", "", `--network two:interface_name=x: interface "x": network 1 has it already (--network one:interface_name=x)`},
		{"one:ip=10.1.0.5 one:ip=10.1.0.5", "", "address 10.1.0.5: on eth0 already"},
		{"one:mac=02:00:00:00:00:01 one:mac=02:00:00:00:00:01", "", "mac 02:00:00:00:00:01: on eth0 already"},
		{"one wide", "", "subnet 10.0.0.0/8: overlaps 10.1.0.0/24 of network one"},
		{"one ns:/run/netns/x", "", "--network ns:/run/netns/x: stands alone, and 2 networks"},
		{"none one", "", "--network none: stands alone"},
		{"container:c1", "", `"container"`},
	}
	for _, tt := range tests {
		var reqs []Request
		for flag := range strings.FieldsSeq(tt.flags) {
			r, err := ParseFlag(flag, []string{dir})
			if err != nil {
				t.Fatal(err)
			}
			reqs = append(reqs, r)
		}
		plans, err := PlanAll(reqs)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%s: error %v, want %q", tt.flags, err, tt.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.flags, err)
			continue
		}
		var names []string
		for _, p := range plans {
			if p.IfName != "" {
				names = append(names, p.IfName)
			}
		}
		if got := strings.Join(names, " "); got != tt.names {
			t.Errorf("%s: %s, want %s", tt.flags, got, tt.names)
		}
		for _, r := range reqs {
			if strings.HasPrefix(r.IfName, "eth1") {
				t.Error("the caller's requests were changed")
			}
		}
	}
}

// TestPlanBuilt: what ParseFlag builds, the strategies take.
func TestPlanBuilt(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{
		"bridge:ip=10.1.0.2/24,ip=fd00::2/64,gateway=10.1.0.1,mtu=1400", "bridge:bridge=br0", "bridge:bridge=br0,ip=10.1.0.2/24", "ptp:ip=10.1.0.2/24",
	} {
		r, err := ParseFlag(flag, nil)
		if err != nil {
			t.Fatal(err)
		}
		plans, err := PlanAll([]Request{r})
		if err != nil {
			t.Errorf("%s: %v", flag, err)
			continue
		}
		p := plans[0]
		wantIPAM := "static"
		if len(r.IPs) == 0 {
			wantIPAM = ""
		}
		if p.IPAM != wantIPAM || len(p.IPs) != len(r.IPs) || p.Masquerade != OwnSubnet(r) {
			t.Errorf("%s: %+v", flag, p)
		}
	}
}
