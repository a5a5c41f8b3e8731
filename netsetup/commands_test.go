package netsetup

import (
	"errors"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// replay runs commands as a person would, in a host that has a namespace of the name.
// The kernel makes up the MAC address of the host's end, which is mac here.
func replay(t *testing.T, host *netsetuptest.Host, name string, commands []Command, hostIf, mac string) {
	t.Helper()
	for _, c := range commands {
		line := c.Line
		if hostIf != "" {
			line = strings.Replace(line, "ip link add "+hostIf, "ip link add "+hostIf+" address "+mac, 1)
		}
		if c.Inside {
			line = "ip netns exec $NETNS " + line
		}
		if r := host.Run(t, "sh", "-c", "NETNS="+name+"; "+line); r.Code != 0 || r.Stderr != "" {
			t.Errorf("%s\nexit %d: %s", line, r.Code, r.Stderr)
		}
	}
}

// TestCommands has the commands leave what nsinit leaves.
func TestCommands(t *testing.T) {
	t.Parallel()
	const v6 = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00:1::/64"}]]}`
	for name, test := range map[string]struct {
		plugin string
		addrs  string
		change func(*Request)
	}{
		"bridge":      {bridgeNet, "10.1.0.2/24 fd00:1::2/64", nil},
		"IPv4":        {`{"type": "bridge", "isGateway": true, "mtu": 1400, "promiscMode": true, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}`, "10.1.0.2/24", nil},
		"IPv6":        {`{"type": "bridge", "bridge": "br.6", "isDefaultGateway": true, ` + v6 + `}`, "fd00:1::2/64", nil},
		"bare":        {`{"type": "bridge", "hairpinMode": true, "portIsolation": true}`, "", nil},
		"left down":   {`{"type": "bridge", "disableContainerInterface": true}`, "", nil},
		"asked":       {bridgeNet, "10.1.0.2/24 fd00:1::2/64", func(r *Request) { r.MAC = "02:00:00:00:00:07"; r.IfName = "lan.0"; r.Owner = "it's" }},
		"routes":      {strings.Replace(bridgeNet, `"ranges"`, routesOfAllKinds+`, "ranges"`, 1), "10.1.0.2/24 fd00:1::2/64", nil},
		"ptp":         {ptpNet, "10.2.0.2/24 fd00:2::2/64", nil},
		"ptp, two":    {ptpNet, "10.2.0.2/24 10.2.0.3/24", nil},
		"loopback":    {`{"type": "loopback", "mtu": 60000}`, "", func(r *Request) { r.IfName = "" }},
		"vlan":        {`{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "vlan": 100, ` + pools + `}`, "10.1.0.2/24 fd00:1::2/64", nil},
		"vlan, kept":  {`{"type": "bridge", "bridge": "br0", "isGateway": true, "vlan": 100, "preserveDefaultVlan": true, ` + pools + `}`, "10.1.0.2/24 fd00:1::2/64", nil},
		"vlan, trunk": {`{"type": "bridge", "bridge": "br0", "vlanTrunk": [{"minID": 100, "maxID": 110}, {"id": 7}]}`, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			if strings.Contains(test.plugin, `"vlan`) {
				needFiltering(t, host)
			}
			var change []func(*Request)
			if test.change != nil {
				change = append(change, test.change)
			}
			p := planOf(t, test.plugin, change...)
			c := newContainer(t, host, "web")
			a := c.start(t, host, p, prefixes(strings.Fields(test.addrs)...))
			var commands []Command
			if err := host.DoInside(func() error { // bridges' MAC addresses tell namespaces apart
				s, err := StrategyOf(p.Strategy)
				commands = s.Commands(p, a)
				return err
			}); err != nil {
				t.Fatal(err)
			}

			again := netsetuptest.NewHost(t)
			other := newContainer(t, again, "web")
			other.Run(t, "ip", "link", "set", "lo", "up").OK(t)
			mac := ""
			if a.HostIf != "" {
				mac = host.Link(t, a.HostIf).Address
			}
			replay(t, again, "web", commands, a.HostIf, mac)
			for side, nodes := range map[string][2]*netsetuptest.Node{"host": {host.Node, again.Node}, "inside": {c.Node, other.Node}} {
				err := netsetuptest.Retry(netsetuptest.Patience/4, func() error { // a link-local address is tentative first
					if diff := netsetuptest.Diff(nodes[0].NetworkSnapshot(t), nodes[1].NetworkSnapshot(t)); diff != "" {
						return errors.New(diff)
					}
					return nil
				})
				if err != nil {
					t.Errorf("%s, nsinit and the commands:\n%v", side, err)
				}
			}
			if t.Failed() {
				for _, c := range commands {
					t.Log(c.Inside, c.Line)
				}
			}
		})
	}
}

const routesOfAllKinds = `"routes": [{"dst": "10.9.0.0/16"}, {"dst": "10.8.0.0/16", "gw": "10.1.0.9", "mtu": 1300, "advmss": 1200, "priority": 5},
	{"dst": "10.7.0.0/16", "table": 1000}, {"dst": "10.6.0.0/16", "scope": 253}, {"dst": "10.5.0.0/16", "scope": 254, "table": 7},
	{"dst": "fd00:9::/64", "gw": "fd00:1::8"}, {"dst": "fd00:9::/64", "gw": "fd00:1::9"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.9"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.8"}]`
