package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listFile writes a network's list of plugins.
func listFile(t testing.TB, name string, plugins ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".conflist")
	write(t, path, fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [%s]}`, name, strings.Join(plugins, ", ")))
	return path
}

// bridgeNet writes a network of one bridge with further keys.
func bridgeNet(t testing.TB, name, keys string) string {
	t.Helper()
	return listFile(t, name, `{"type": "bridge", `+keys+`}`)
}

// TestBridgeVLANs has two VLANs on one bridge, each with a gateway of its own.
func TestBridgeVLANs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if r := m.Run(t, "ip", "link", "add", "probe0", "type", "bridge", "vlan_filtering", "1"); r.Code != 0 {
		t.Skipf("the kernel has no VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING): %s", r.Stderr)
	}
	m.Run(t, "ip", "link", "del", "probe0").OK(t)
	vlan := func(id int) string {
		return bridgeNet(t, fmt.Sprintf("v%d", id), fmt.Sprintf(`"bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "vlan": %d,
			"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.%d.0.0/24"}], [{"subnet": "fd%d::/64"}]]}`, id, id, id))
	}
	one, two := vlan(71), vlan(72)
	out := m.Outside(t)
	a := m.detached(t, "a", "--network", one, "sleep", "60")
	b := m.detached(t, "b", "--network", one, "sleep", "60")
	c := m.detached(t, "c", "--network", two, "sleep", "60")
	echo, strange, outside := b.node(t).Echo(t), c.node(t).Echo(t), out.Echo(t)
	v4, v6 := b.addrs(t)
	for _, to := range []netip.Addr{v4, v6} {
		if err := reaches(a.node(t), to, echo, 1500); err != nil {
			t.Error(err)
		}
	}
	for _, to := range []netip.Addr{out.V4, out.V6} {
		if err := reaches(c.node(t), to, outside, 1500); err != nil {
			t.Error(err)
		}
	}
	v4, v6 = c.addrs(t)
	for _, to := range []netip.Addr{v4, v6} {
		a.node(t).Run(t, "ip", "route", "add", to.String(), "dev", "eth0").OK(t)
		if err := silent(a.node(t), to, strange); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		m.nsinit(t, "delete", "--force", id).OK(t)
	}
}

// TestMacSpoofCheck has a container that takes another MAC address.
func TestMacSpoofCheck(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	network := bridgeNet(t, "checked", `"bridge": "br0", "isGateway": true, "macspoofchk": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd71::/64"}]]}`)
	c := m.detached(t, "c", "--network", network, "--cap-add", "NET_ADMIN", "sleep", "60")
	ping := func() error { return m.Ping(netip.MustParseAddr("10.71.0.2"), 56, 300*time.Millisecond) }
	if err := ping(); err != nil {
		t.Error(err)
	}
	c.exec(t, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:66").OK(t)
	m.Run(t, "ip", "neigh", "flush", "dev", "br0").OK(t)
	if ping() == nil {
		t.Error("another MAC address is let through")
	}
	m.nsinit(t, "delete", "--force", "c").OK(t)
	if rules := m.Run(t, "nft", "list", "table", "bridge", "nsinit").OK(t).Stdout; strings.Contains(rules, "02:") || strings.Contains(rules, "0a:58") {
		t.Errorf("left:\n%s", rules)
	}
	m.nsinit(t, "gc", "--all").OK(t)
	if rules := m.Run(t, "nft", "list", "ruleset").OK(t).Stdout; rules != "" {
		t.Errorf("left:\n%s", rules)
	}
}
