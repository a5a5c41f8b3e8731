package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// networkInfo is what `nsinit network ls` and `show` say that the tests look at.
type networkInfo struct {
	Name, Source, Bridge string
	Default              bool
	Types, Faults        []string
	HiddenBy             string
	Subnets              []struct{ Prefix string }
	Users                []struct{ Container, IfName string }
}

func TestNetworkList(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty() // the default network's bridge
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`)
	dir := filepath.Dir(path)
	write(t, filepath.Join(dir, "zz-again.conflist"), `{"cniVersion": "1.1.0", "name": "lan", "plugins": [{"type": "loopback"}]}`)
	write(t, filepath.Join(dir, "30-bad.conflist"), `{"cniVersion": "1.1.0", "name": "bad", "plugins": [{"type": "bridge", "mtu": "big"}]}`)
	write(t, filepath.Join(dir, "40-worse.conflist"), `{`)
	m.detached(t, "c", "--network-config-dir", dir, "--network", "lan", "--network", "bridge", "--", "sleep", "60")
	list := netsetuptest.Decode[[]networkInfo](t, m.nsinit(t, "network", "ls", "--network-config-dir", dir, "--json").OK(t))
	byFile := map[string]networkInfo{}
	for _, n := range list {
		byFile[filepath.Base(n.Source)] = n
	}
	if n := byFile["lan.conflist"]; n.Bridge != "br-lan" || len(n.Users) != 1 || byFile["zz-again.conflist"].HiddenBy != path {
		t.Errorf("two lists called lan: %+v", list)
	}
	for file, want := range map[string]string{"30-bad.conflist": "mtu", "40-worse.conflist": "1:2"} {
		if n := byFile[file]; len(n.Faults) != 1 || !strings.Contains(n.Faults[0], file) || !strings.Contains(n.Faults[0], want) {
			t.Errorf("%s: %+v", file, n)
		}
	}
	n := byFile["nsinit.json"]
	if !n.Default || n.Bridge != "nsinit0" || len(n.Subnets) != 2 || len(n.Users) != 1 || n.Users[0].Container != "c" || n.Users[0].IfName != "eth1" {
		t.Errorf("default network: %+v", n)
	}
	shown := m.nsinit(t, "network", "show", "nsinit").OK(t).Stdout
	for _, want := range []string{"bridge: nsinit0", "used by: c eth1 ", n.Subnets[0].Prefix, `"isDefaultGateway": true`} {
		if !strings.Contains(strings.Join(strings.Fields(shown), " "), want) {
			t.Errorf("show lacks %q:\n%s", want, shown)
		}
	}
	if err := oneLine(m.nsinit(t, "network", "show", "nowhere").Want(t, 125)); err != nil {
		t.Error(err)
	}
}

// TestNetworkCheck breaks what a start has made, thing by thing; check has to name each.
func TestNetworkCheck(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	c := m.detached(t, "c", "--network", lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd00:71::/64"}]`), "--network", "bridge", "--", "sleep", "60")
	s := c.state(t)
	if out := m.nsinit(t, "network", "check", "c").OK(t).Stdout; strings.Count(out, ": as it was made\n") != 2 {
		t.Fatalf("check of what was just made: %s", out)
	}
	lan := s.Networks[0]
	inside, addr := c.node(t), strings.Split(lan.Addresses[0], "/")[0]
	for _, b := range []struct {
		node   *netsetuptest.Node
		broken string
		want   string
	}{
		{inside, "ip addr del " + lan.Addresses[0] + " dev eth0", "eth0: address: want " + lan.Addresses[0]},
		{inside, "ip addr add 10.9.9.9/32 dev eth0", "eth0: address: want none, the kernel has 10.9.9.9/32"},
		{inside, "ip link set eth0 mtu 1300", "eth0: MTU: want 1500"},
		{m.Node, fmt.Sprintf("ip link set %s nomaster", lan.HostIf), lan.HostIf + ": bridge: want br-lan"},
		{m.Node, "nft delete element inet nsinit containers4 '{ " + addr + " }'", "table inet nsinit: want " + addr},
		{m.Node, "nft flush set inet nsinit networks4", "table inet nsinit: want the network's subnets"},
		{m.Node, "ip link set br-lan down", "br-lan: state: want up"},
	} {
		b.node.Run(t, "sh", "-c", b.broken).OK(t)
		if r := m.nsinit(t, "network", "check", "c").Want(t, 1); !strings.Contains(r.Stdout, b.want) {
			t.Errorf("%s: check lacks %q:\n%s", b.broken, b.want, r.Stdout)
		}
	}
	found := netsetuptest.Decode[[]struct {
		Network     string
		Differences []struct{ Object, Want, Got string }
	}](t, m.nsinit(t, "network", "check", "--json", "c").Want(t, 1))
	if len(found) != 2 || found[0].Network != "lan" || len(found[0].Differences) < 5 || found[0].Differences[0].Want == "" {
		t.Errorf("check --json: %+v (%s)", found, addr)
	}
	if err := oneLine(m.nsinit(t, "network", "check", "nobody").Want(t, 125)); err != nil {
		t.Error(err)
	}
}

// TestNetworkReload flushes the host's firewall: reload makes it as it was.
func TestNetworkReload(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`)
	m.detached(t, "a", "--network", path, "--", "sleep", "600")
	m.detached(t, "b", "--network", "bridge", "--", "sleep", "600")
	before := m.Snapshot(t)
	m.nsinit(t, "network", "reload").OK(t)
	m.Await(t, before)
	m.Run(t, "nft", "flush", "ruleset").OK(t)
	m.nsinit(t, "network", "check", "a").Want(t, 1)
	m.nsinit(t, "network", "reload").OK(t)
	m.Await(t, before)
	m.nsinit(t, "network", "check", "a").OK(t)
}
