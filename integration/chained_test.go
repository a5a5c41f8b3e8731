package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// chainedList is a list of a bridge with further plugins behind it.
func chainedList(t testing.TB, name, bridge, subnet string, plugins ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".conflist")
	write(t, path, fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [{"type": "bridge", "bridge": %q, "isDefaultGateway": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]]}}, %s]}`, name, bridge, subnet, strings.Join(plugins, ", ")))
	return path
}

// TestShapingPolicies starts a container on two networks with policies; check finds nothing, the end leaves nothing.
func TestShapingPolicies(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty() // the bridges
	one := chainedList(t, "one", "br-one", "10.81.0.0/24",
		`{"type": "tuning", "mac": "02:00:00:00:00:81", "mtu": 1400, "promisc": true, "txQLen": 50, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "99"}}`,
		`{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 4000000, "egressBurst": 400000}`)
	two := chainedList(t, "two", "br-two", "10.82.0.0/24", `{"type": "sbr"}`)
	c := m.detached(t, "c", "--network", one, "--network", two, "--", "sleep", "60")
	inside := c.node(t)
	eth := inside.Link(t, "eth0")
	if eth.Address != "02:00:00:00:00:81" || eth.MTU != 1400 || !strings.Contains(fmt.Sprint(eth.Flags), "PROMISC") {
		t.Errorf("eth0: %+v", eth)
	}
	for key, want := range map[string]string{"ipv4/conf/eth0/arp_filter": "1", "core/somaxconn": "99"} {
		if got := inside.Run(t, "cat", "/proc/sys/net/"+key).OK(t).Line(); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	if queues := m.Run(t, "tc", "qdisc").OK(t).Stdout; strings.Count(queues, "qdisc tbf ") != 2 || strings.Count(queues, "qdisc ingress ") != 1 {
		t.Errorf("queues:\n%s", queues)
	}
	if rules := inside.Run(t, "ip", "rule").OK(t).Stdout; !strings.Contains(rules, "from 10.82.0.2 lookup 100") {
		t.Errorf("rules:\n%s", rules)
	}
	if got := inside.Run(t, "ip", "route", "get", "203.0.113.5", "from", "10.82.0.2").OK(t).Stdout; !strings.Contains(got, "via 10.82.0.1 dev eth1 table 100") {
		t.Errorf("from eth1's address: %s", got)
	}
	m.nsinit(t, "network", "check", "c").OK(t)
	m.Run(t, "sh", "-c", "tc qdisc del dev $(ip -br link show type ifb | cut -d' ' -f1) root").OK(t)
	if r := m.nsinit(t, "network", "check", "c"); r.Code != 1 || !strings.Contains(r.Stdout, "queue: want tbf") {
		t.Errorf("check without the limit: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}
	m.nsinit(t, "delete", "--force", "c").OK(t)
	for _, l := range m.Links(t) {
		if l.LinkInfo.Kind == "ifb" {
			t.Errorf("%s is left", l.IfName)
		}
	}
}

// TestVRFPolicy needs a kernel with the device.
func TestVRFPolicy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	if r := m.Run(t, "ip", "link", "add", "probe", "type", "vrf", "table", "9"); r.Code != 0 {
		t.Skipf("this kernel has no vrf devices (CONFIG_NET_VRF): %s", r.Stderr)
	}
	m.Run(t, "ip", "link", "del", "probe").OK(t)
	red := chainedList(t, "red", "br-red", "10.83.0.0/24", `{"type": "vrf", "vrfname": "red"}`)
	c := m.detached(t, "c", "--network", red, "--", "sleep", "60")
	inside := c.node(t)
	if got := inside.Run(t, "ip", "route", "show", "vrf", "red").OK(t).Stdout; !strings.Contains(got, "default via 10.83.0.1 dev eth0") {
		t.Errorf("routes: %s", got)
	}
	inside.Run(t, "ping", "-c1", "-W5", "-I", "red", "10.83.0.1").OK(t)
	m.nsinit(t, "network", "check", "c").OK(t)
	m.nsinit(t, "delete", "--force", "c").OK(t)
}

// TestShapingFaults are told before anything is made, all at once.
func TestShapingFaults(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	path := chainedList(t, "bad", "br-bad", "10.84.0.0/24", `{"type": "tuning", "mtu": 1, "sysctl": {"kernel.hostname": "x"}}`,
		`{"type": "bandwidth", "ingressRate": 5}`, `{"type": "sbr", "table": 0}`, `{"type": "vrf"}`)
	r := m.run(t, "--network", path, "--", "true").Want(t, 125)
	for _, want := range []string{"plugins[1].mtu", "plugins[1].sysctl", "plugins[2].ingressRate", "plugins[3].table", "plugins[4].vrfname"} {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("no fault of %s in:\n%s", want, r.Stderr)
		}
	}
	if names := netsetuptest.Names(m.Links(t)); strings.Contains(fmt.Sprint(names), "br-bad") {
		t.Errorf("made: %s", names)
	}
}
