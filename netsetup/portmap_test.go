package netsetup

import (
	"fmt"
	"strings"
	"testing"
)

func portmapPlan(keys string) (Plan, Plugin) {
	raw := []byte(`{"type": "portmap"` + keys + `}`)
	n := &Network{Name: "lan", Source: "lan.conflist", Plugins: []Plugin{{Type: "bridge", Raw: []byte(`{}`)}, {Type: "portmap", Raw: raw}}}
	return Plan{Request: Request{Network: n}}, n.Plugins[1]
}

func TestReadPortmap(t *testing.T) {
	t.Parallel()
	list := func(entries string) string { return `, "runtimeConfig": {"portMappings": [` + entries + `]}` }
	for _, tt := range []struct{ keys, want, err string }{
		{"", "[]", ""},
		{`, "capabilities": {"portMappings": true}, "snat": true, "backend": "iptables", "markMasqBit": 5, "conditionsV4": [], "conditionsV6": [""]`, "[]", ""},
		{`, "externalSetMarkChain": "KUBE-MARK-MASQ"`, "[]", ""},
		{list(`{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}`), "[8080:80/tcp]", ""},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "udp"}, {"hostPort": 2, "containerPort": 2, "protocol": "udp"}, {"hostPort": 3, "containerPort": 4, "protocol": "udp"}`), "[1-2:1-2/udp 3:4/udp]", ""},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "SCTP", "hostIP": "2001:db8::1"}`), "[[2001:db8::1]:1:1/sctp]", ""},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "::ffff:192.0.2.1"}`), "[192.0.2.1:1:1/tcp]", ""},
		{list(`{"hostPort": 0, "containerPort": 1, "protocol": "tcp"}`), "[0:1/tcp]", ""},
		{list(`{"hostPort": 70000, "containerPort": 1, "protocol": "tcp"}`), "", "lan.conflist: plugins[1]: portMappings[0].hostPort: 70000: 1 to 65535"},
		{list(`{"hostPort": 1, "containerPort": 0, "protocol": "tcp"}`), "", "portMappings[0].containerPort: 0"},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}`), "", `portMappings[0].protocol: "icmp": unknown`},
		{list(`{"hostPort": 1, "containerPort": 1}`), "", `portMappings[0].protocol: "": unknown`},
		{list(`{"hostPort": -1, "containerPort": 1, "protocol": "tcp"}`), "", `runtimeConfig.portMappings[0].hostPort: "-1"`},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "here"}`), "", `portMappings[0].hostIP: "here": an IP address`},
		{list(`{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}, {"hostPort": 1, "containerPort": 2, "protocol": "tcp"}`), "", "1:1/tcp and 1:2/tcp: the same host port twice"},
		{list(`{"hostport": 1}`), "", "plugins[1].runtimeConfig.portMappings[0].hostport: unknown key"},
		{`, "markMasqBit": 32`, "", `plugins[1].markMasqBit: "32": a bit of the packet's mark`},
		{`, "markMasqBit": 1, "externalSetMarkChain": "X"`, "", "exclude each other"},
		{`, "backend": "ipfw"`, "", `plugins[1].backend: "ipfw"`},
		{`, "conditionsV4": ["!", "-d", "192.0.2.0/24"]`, "", "plugins[1].conditionsV4: conditions are for iptables or nft"},
		{`, "snat": "no"`, "", "plugins[1].snat: a string; true or false"},
	} {
		p, plugin := portmapPlan(tt.keys)
		conf, err := ReadPortmap(p, plugin)
		switch {
		case tt.err == "" && (err != nil || fmt.Sprint(conf.Mappings) != tt.want):
			t.Errorf("%s: %v, %v; want %s", tt.keys, conf.Mappings, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%s: %v, want %q", tt.keys, err, tt.err)
		}
	}
}

func FuzzPortmap(f *testing.F) {
	f.Add(`, "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]}`)
	f.Add(`, "markMasqBit": 1, "externalSetMarkChain": "X", "conditionsV4": ["-d"]`)
	f.Fuzz(func(t *testing.T, keys string) {
		p, plugin := portmapPlan(keys)
		conf, err := ReadPortmap(p, plugin)
		if err != nil {
			return
		}
		for _, m := range conf.Mappings {
			if err := CheckPortMapping(m); err != nil {
				t.Errorf("%s: taken: %v", m, err)
			}
		}
	})
}
