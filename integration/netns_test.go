package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestJoinNamedNamespace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(t, "sh", "-c", "ip netns add blue && ip -n blue link set lo up && ip -n blue link add br9 type bridge && ip -n blue addr add 10.9.0.1/24 dev br9 && ip netns exec blue sysctl -qw net.ipv4.ip_forward=1").OK(t)
	t.Cleanup(func() { m.Run(t, "ip", "netns", "del", "blue").OK(t) })
	blue := m.Named(t, "blue")
	before := blue.NetworkSnapshot(t)
	if got := m.run(t, "--network", "ns:/run/netns/blue", "--", "ip", "-4", "-o", "addr", "show", "dev", "br9").OK(t).Stdout; !strings.Contains(got, "10.9.0.1/24") {
		t.Errorf("inside: %q", got)
	}
	if d := netsetuptest.Diff(before, blue.NetworkSnapshot(t)); d != "" {
		t.Errorf("the namespace was changed:\n%s", d)
	}
}

func TestJoinContainer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	node := c.node(t)
	before := node.NetworkSnapshot(t)
	if got := m.run(t, "--network", "container:a", "--", "readlink", "/proc/self/ns/net").OK(t).Line(); got != fmt.Sprintf("net:[%d]", node.Inode(t)) {
		t.Errorf("namespace %s, want %d", got, node.Inode(t))
	}
	if d := netsetuptest.Diff(before, node.NetworkSnapshot(t)); d != "" {
		t.Errorf("the namespace was changed:\n%s", d)
	}
}

func TestNetnsName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--network", "bridge", "--netns-name", "blue", "sleep", "60")
	v4, _ := c.addrs(t)
	if got := m.Run(t, "ip", "netns", "exec", "blue", "ip", "-4", "-o", "addr", "show", "dev", "eth0").OK(t).Stdout; !strings.Contains(got, v4.String()) {
		t.Errorf("ip netns exec: %q, want %v", got, v4)
	}
	if m.Named(t, "blue").Inode(t) != c.node(t).Inode(t) {
		t.Error("/run/netns/blue is some other namespace")
	}
	m.nsinit(t, "delete", "--force", "a").OK(t)
	if _, err := os.Lstat(m.Path("/run/netns/blue")); err == nil {
		t.Error("/run/netns/blue is still there")
	}
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	before := m.Snapshot(t)
	own := []string{"file ", "cgroup "} // nsinit's state directory and its cgroup's parent, both empty
	want := m.Run(t, "readlink", "/proc/self/ns/net").OK(t).Line()
	if got := m.run(t, "--network", "host", "readlink", "/proc/self/ns/net").OK(t).Line(); got != want {
		t.Errorf("namespace %s, want the host's %s", got, want)
	}
	m.run(t, with([]string{"--network", "host"}, script("ls /sys/class/net/to-outside"))...).OK(t)
	if got := m.run(t, with([]string{"--network", "host"}, script("(echo 1 >/proc/sys/net/ipv4/ip_forward) 2>&1 | grep -c Read-only"))...).Line(); got != "1" {
		t.Error("the host's sysctls can be written")
	}
	if d := netsetuptest.Diff(before.Without(own...), m.Snapshot(t).Without(own...)); d != "" {
		t.Errorf("the host was changed:\n%s", d)
	}
}

func TestNoNetwork(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.run(t, "--network", "none", "--", "ip", "-d", "-j", "addr").OK(t)
	links := netsetuptest.Decode[[]netsetuptest.Link](t, r)
	if len(links) != 1 || !links[0].Up() || len(links[0].AddrInfo) != 2 {
		t.Errorf("interfaces %+v, want lo up", links)
	}
	if links := netsetuptest.Names(m.Links(t)); !slices.Equal(links, []string{"lo"}) {
		t.Errorf("the host has %v now", links)
	}
}
