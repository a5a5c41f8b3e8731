package netsetup

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestAsked has what a container asks for by each of CNI's ways.
func TestAsked(t *testing.T) {
	t.Parallel()
	const pools = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.99"}, {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.100"}], [{"subnet": "fd00:1::/64"}]]}`
	const static = `"ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}], "dns": {"nameservers": ["192.0.2.1"]}}`
	for name, test := range map[string]struct {
		plugin string
		args   map[string]string
		change func(*Request)
		want   string // addresses, MAC, name servers
	}{
		"nothing":          {pools, nil, nil, "[] [] "},
		"host-local":       {pools + `, "args": {"cni": {"ips": ["10.1.0.150/24"], "mac": "0A-00-00-00-00-01", "labels": {"a": 1}}}`, nil, nil, "[10.1.0.150/24] [] 0a:00:00:00:00:01"},
		"both pools":       {pools + `, "args": {"cni": {"ips": ["10.1.0.50"]}}, "runtimeConfig": {"ips": ["fd00:1::5/64"], "portMappings": []}`, nil, nil, "[fd00:1::5/64 invalid Prefix] [] "},
		"CNI_ARGS":         {pools, map[string]string{"IP": "10.1.0.7", "MAC": "0a:00:00:00:00:02", "IgnoreUnknown": "1", "K8S_POD_NAME": "x"}, nil, "[invalid Prefix] [] 0a:00:00:00:00:02"},
		"MACs":             {pools + `, "runtimeConfig": {"mac": "0a:00:00:00:00:03"}, "args": {"cni": {"mac": "0a:00:00:00:00:01"}}`, map[string]string{"MAC": "0a:00:00:00:00:02"}, nil, "[] [] 0a:00:00:00:00:03"},
		"the request":      {pools + `, "runtimeConfig": {"mac": "0a:00:00:00:00:03"}`, nil, func(r *Request) { r.MAC = "0a:00:00:00:00:09"; r.IPs = prefixes("10.1.0.9/24") }, "[10.1.0.9/24] [] 0a:00:00:00:00:09"},
		"resolvers":        {pools + `, "dns": {"nameservers": ["192.0.2.1"]}, "runtimeConfig": {"dns": {"servers": ["192.0.2.2"], "searches": ["lan"]}}`, nil, nil, "[] [192.0.2.2] "},
		"static":           {static, nil, nil, "[10.1.0.2/24] [192.0.2.1] "},
		"static, CNI_ARGS": {static, map[string]string{"IP": "10.1.0.3/24, fd00:1::3/64", "GATEWAY": "fd00:1::1"}, nil, "[10.1.0.2/24 10.1.0.3/24 fd00:1::3/64] [192.0.2.1] "},
		"static, args":     {static + `, "args": {"cni": {"ips": ["10.1.0.4/24"]}}`, map[string]string{"IP": "10.1.0.3/24"}, nil, "[10.1.0.4/24] [192.0.2.1] "},
		"static, runtime":  {static + `, "args": {"cni": {"ips": ["10.1.0.4/24"]}}, "runtimeConfig": {"ips": ["10.1.0.5/24"]}`, nil, nil, "[10.1.0.5/24] [192.0.2.1] "},
		"static, request":  {static + `, "runtimeConfig": {"ips": ["10.1.0.5/24"]}`, nil, func(r *Request) { r.IPs = prefixes("10.1.0.6/24") }, "[10.1.0.6/24] [192.0.2.1] "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planOf(t, `{"type": "bridge", `+test.plugin+`}`, func(r *Request) {
				r.Runtime.Args = test.args
				if test.change != nil {
					test.change(r)
				}
			})
			wantEqual(t, "asked", fmt.Sprint(p.IPs, " ", p.DNS.Nameservers, " ", p.MAC), test.want)
		})
	}
}

// TestAskedRanges has pools of the container's own, which come before the network's.
func TestAskedRanges(t *testing.T) {
	t.Parallel()
	subnet := func(s string) Subnet { return Subnet{Prefix: netip.MustParsePrefix(s)} }
	const plugin = `{"type": "bridge", "ipam": {"type": "host-local"%s}, "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]}}`
	p := planOf(t, fmt.Sprintf(plugin, `, "ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}]]`), func(r *Request) {
		r.Runtime.IPRanges = [][]Subnet{{subnet("10.4.0.0/24"), subnet("10.5.0.0/24")}, {subnet("fd00:4::/64")}}
	})
	var got []string
	for _, s := range p.Subnets {
		got = append(got, fmt.Sprint(s.Prefix, " ", s.Alternative))
	}
	wantEqual(t, "pools", fmt.Sprint(got), "[10.4.0.0/24 false 10.5.0.0/24 true fd00:4::/64 false 10.3.0.0/24 false 10.1.0.0/24 false 10.2.0.0/24 true]")
	p = planOf(t, fmt.Sprintf(plugin, ""))
	wantEqual(t, "only the container's", fmt.Sprint(len(p.Subnets)), "1")
}

func TestAskedRefuses(t *testing.T) {
	t.Parallel()
	const pool = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"}]]}`
	for _, test := range []struct {
		plugin string
		change func(*Request)
		want   []string
	}{
		{pool + `, "args": {"cni": {"ips": ["10.1.0.5", "10.1.0.20/16", "x", 5]}}`, nil, []string{
			`lan.conflist: plugins[0].args.cni.ips[0]: "10.1.0.5": outside of the pool's range 10.1.0.10-10.1.0.254`, `args.cni.ips[1]: "10.1.0.20/16": its subnet is 10.1.0.0/24`,
			`args.cni.ips[2]: "x": an address is wanted`, `args.cni.ips[3]: a number; a string`,
		}},
		{pool + `, "runtimeConfig": {"ips": ["10.1.0.20", "10.1.0.21"], "ipRanges": [[{"subnet": "10.1.0.128/25"}], []]}`, nil, []string{
			`runtimeConfig.ips[1]: "10.1.0.21": 10.1.0.20 is asked for already`, `ranges[0][0].subnet: "10.1.0.0/24": its range 10.1.0.10-10.1.0.254 overlaps`, `ipRanges[1]: no pool in this set`,
		}},
		{pool, func(r *Request) {
			r.Runtime.Args = map[string]string{"IP": "10.1.0.1", "MAC": "01:00:00:00:00:00", "FOO": "1", "GATEWAY": "x"}
		}, []string{
			`CNI_ARGS: IP: "10.1.0.1": the network's gateway has it`, `CNI_ARGS: MAC: "01:00:00:00:00:00": a multicast address`, "CNI_ARGS: FOO: unknown key", `CNI_ARGS: GATEWAY: "x"`,
		}},
		{pool, func(r *Request) {
			r.Runtime.IPRanges = [][]Subnet{{{Prefix: netip.MustParsePrefix("10.1.0.1/24")}}}
		}, []string{`--network lan: ipRanges[0][0].subnet: "10.1.0.1/24": has host bits`}},
		{`"ipam": {"type": "static"}, "args": {"cni": {"ips": ["10.1.0.5"]}}`, nil, []string{`args.cni.ips[0]: "10.1.0.5": no prefix length`}},
		{`"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}`, func(r *Request) { r.Network.CNIVersion = "0.2.0" }, []string{
			`cniVersion: "0.2.0": has one address a family`,
		}},
	} {
		n := networkOf(`{"type": "bridge", ` + test.plugin + `}`)
		r := Request{Strategy: "bridge", IfName: "eth0", Network: n, Source: "--network lan"}
		if test.change != nil {
			test.change(&r)
		}
		_, err := bridge{}.Plan(r)
		wantFaults(t, err, test.want...)
	}
}

// TestRouteWithoutGateway has the ways to say that a route has none.
func TestRouteWithoutGateway(t *testing.T) {
	t.Parallel()
	p := planOf(t, `{"type": "bridge", "isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
		"routes": [{"dst": "10.7.0.0/16"}, {"dst": "10.8.0.0/16", "gw": "0.0.0.0"}, {"dst": "10.9.0.0/16", "scope": 254}, {"dst": "fd00:9::/64", "gw": "::"}]}}`)
	a, err := p.attachment(prefixes("10.1.0.2/24", "fd00:1::2/64"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range a.Routes {
		got = append(got, fmt.Sprint(r.Dst, " ", r.Gateway, " ", r.Scope))
	}
	wantEqual(t, "routes", fmt.Sprint(got), "[10.7.0.0/16 10.1.0.1 0 10.8.0.0/16 invalid IP 253 10.9.0.0/16 invalid IP 254 fd00:9::/64 invalid IP 253]")
	p.ResolvConf = t.TempDir() + "/missing"
	_, err = p.attachment(prefixes("10.1.0.2/24"), nil)
	wantError(t, err, "lan.conflist: plugins[0].ipam.resolvConf: ", "no such file")
}
