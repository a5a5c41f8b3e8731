package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A running container is connected to networks and taken off them again: each carries traffic, and the host is then as it
// was.
func TestAttachDetach(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out := m.Outside(t)
	dir := t.TempDir()
	for _, args := range [][]string{
		{"lan"},
		{"-d", "ptp", "--subnet", "10.72.0.0/24", "--subnet", "fd00:72::/64", "p2p"},
	} {
		m.nsinit(t, append([]string{"network", "add", "--network-config-dir", dir}, args...)...).OK(t)
	}
	c := m.detached(t, "c", "--", "sleep", "60")
	before := m.Snapshot(t)
	attach := func(network string) string {
		t.Helper()
		r := m.nsinit(t, "network", "attach", "--network-config-dir", dir, "c", network).OK(t)
		return strings.Fields(r.Stdout)[0]
	}
	if name := attach("p2p"); name != "eth0" {
		t.Errorf("the first interface is %s", name)
	}
	if name := attach("lan:interface_name=lan7"); name != "lan7" {
		t.Errorf("interface_name: %s", name)
	}
	if name := attach("bridge"); name != "eth1" {
		t.Errorf("the next interface is %s", name)
	}
	outside, inside := out.Echo(t), c.node(t).Echo(t)
	for _, addr := range []netip.Addr{out.V4, out.V6} {
		if err := reaches(c.node(t), addr, outside, 1500); err != nil {
			t.Error(err)
		}
	}
	for _, n := range c.state(t).Networks {
		for _, a := range n.Addresses {
			if err := reaches(m.Node, netip.MustParsePrefix(a).Addr(), inside, 1500); err != nil {
				t.Errorf("%s: %v", n.IfName, err)
			}
		}
	}
	m.nsinit(t, "network", "check", "c").OK(t)
	for _, word := range []string{"p2p", "eth1", "lan"} {
		m.nsinit(t, "network", "detach", "c", word).OK(t)
	}
	if links := netsetuptest.Names(c.node(t).Links(t)); len(links) != 1 {
		t.Errorf("after detach the container has %v", links)
	}
	if n := len(c.state(t).Networks); n != 0 {
		t.Errorf("after detach the state has %d networks", n)
	}
	m.nsinit(t, "network", "rm", "--network-config-dir", dir, "lan", "p2p", "nsinit").OK(t)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("rm left %s", left[0].Name())
	}
	// The table stays for the next network; journals are longer than they were.
	aside := []string{"nft ", "file /run/nsinit/", "file /var/lib/", "sysctl net/ipv4/conf/to-", "sysctl net/ipv6/conf/to-", "process "}
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(before.Without(aside...), m.Snapshot(t).Without(aside...)); d != "" {
			return fmt.Errorf("%s", d)
		}
		return nil
	})
	if left := m.Snapshot(t).Grep("elements").Without("nft table inet nsinit set opened"); len(left) > 0 { // the uplink forwards until gc --all
		t.Errorf("left in the table: %s", left)
	}
	if left := m.Snapshot(t).Grep("file /var/lib/cni/networks/"); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

// TestDetachStarted takes off a network that the container was started with, policies and all.
func TestDetachStarted(t *testing.T) {
	t.Parallel()
	for name, plugins := range map[string]string{
		"bridge":      chainBridge + `, {"type": "sbr"}, ` + chainTuning,
		"host-device": `{"type": "host-device", "device": "card", ` + chainIPAM + `}, {"type": "sbr"}, ` + chainTuning,
		"vrf":         chainPtP + `, {"type": "vrf", "vrfname": "red"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.Dirty() // the network's bridge
			m.Run(t, "sh", "-ec", "ip link add card type veth peer name cable; ip link set cable up").OK(t)
			if name == "vrf" && !m.hasDevices(t, "vrf table 9") {
				t.Skip("the kernel has no vrf devices (CONFIG_NET_VRF)")
			}
			path := listFile(t, "lan", plugins)
			plain := m.detached(t, "plain", "--", "sleep", "60").node(t).NetworkSnapshot(t)
			c := m.detached(t, "c", "--network", path, "--", "sleep", "60")
			if d := netsetuptest.Diff(plain, c.node(t).NetworkSnapshot(t)); !strings.Contains(d, "+ rule4") && name != "vrf" {
				t.Errorf("no rule to take off:\n%s", d)
			}
			m.nsinit(t, "network", "detach", "c", "lan").OK(t)
			if d := netsetuptest.Diff(plain, c.node(t).NetworkSnapshot(t).Without(vrfRules...)); d != "" {
				t.Errorf("left inside:\n%s", d)
			}
		})
	}
}

// What a network attached to a running container has on the host goes with the container as well.
func TestAttachedGoesWithDelete(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/29"}]`)
	m.detached(t, "keeper", "--network", path, "--", "sleep", "60")
	for i := range 6 { // more than the pool has
		id := fmt.Sprint("c", i)
		m.detached(t, id, "--", "sleep", "60")
		m.nsinit(t, "network", "attach", id, path).OK(t)
		if i%2 == 0 {
			m.nsinit(t, "delete", "-f", id).OK(t)
		} else {
			m.nsinit(t, "kill", id, "KILL").OK(t)
			netsetuptest.Poll(t, func() error {
				if s := netsetuptest.Decode[state](t, m.nsinit(t, "state", id).OK(t)); s.Status != "stopped" {
					return fmt.Errorf("%s", s.Status)
				}
				return nil
			})
			m.nsinit(t, "gc").OK(t)
		}
	}
	if set := m.Run(t, "nft", "list", "set", "inet", "nsinit", "containers4").OK(t).Stdout; strings.Count(set, "10.71.0.") != 1 {
		t.Errorf("only keeper is left: %s", set)
	}
}

// An address that a container gave up by detach belongs to whoever has it next: its old owner's end leaves it alone.
func TestDetachedAddressIsAnothers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`)
	m.detached(t, "old", "--network", path+":ip=10.71.0.7", "--", "sleep", "60")
	m.nsinit(t, "network", "detach", "old", "lan").OK(t)
	m.detached(t, "new", "--network", path+":ip=10.71.0.7", "--", "sleep", "60")
	m.nsinit(t, "delete", "-f", "old").OK(t)
	m.nsinit(t, "network", "check", "new").OK(t)
	if r := m.run(t, "--network", path+":ip=10.71.0.7", "--", "true").Want(t, 125); !strings.Contains(r.Stderr, "new") {
		t.Errorf("the address is new's: %s", r.Stderr)
	}
}

func TestAttachRefusals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`)
	m.detached(t, "c", "--network", path, "--", "sleep", "60")
	m.detached(t, "joined", "--network", "container:c", "--", "sleep", "60")
	m.detached(t, "host", "--network", "host", "--", "sleep", "60")
	before := m.Snapshot(t)
	for _, args := range [][]string{
		{"attach", "nobody", path},
		{"attach", "joined", path},
		{"attach", "host", path},
		{"attach", "c", "none"},
		{"attach", "c", "container:joined"},
		{"attach", "c", path + ":interface_name=eth0"},
		{"attach", "c", path + ":interface_name=lo"},
		{"attach", "c", path + ":ip=10.71.0.2"},
		{"attach", "c", "nowhere"},
		{"detach", "c", "eth7"},
		{"detach", "c", "nowhere"},
		{"rm", "--network-config-dir", filepath.Dir(path), "lan"},
	} {
		if err := oneLine(m.nsinit(t, append([]string{"network"}, args...)...).Want(t, 125)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	m.Await(t, before)
}

// Several at once connect one container, and it is deleted meanwhile: nothing is left.
func TestAttachAtOnce(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.Dirty()
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`)
	c := m.detached(t, "c", "--", "sleep", "60")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() { m.nsinit(t, "network", "attach", "c", path).OK(t) })
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, n := range c.state(t).Networks {
		seen[n.IfName+n.Addresses[0]] = true
	}
	if len(seen) != 6 {
		t.Errorf("%d different interfaces of 6: %v", len(seen), seen)
	}
	m.nsinit(t, "network", "check", "c").OK(t)
	for range 4 {
		wg.Go(func() { m.nsinit(t, "network", "attach", "c", path) })
	}
	m.nsinit(t, "delete", "-f", "c").OK(t)
	wg.Wait()
	if set := m.Run(t, "nft", "list", "set", "inet", "nsinit", "containers4").OK(t).Stdout; strings.Contains(set, "10.71.0.") {
		t.Errorf("left: %s", set)
	}
	if left := m.Snapshot(t).Grep("/cni/networks/lan/10."); len(left) > 0 {
		t.Errorf("left: %s", left[0])
	}
}

// What network add writes is what it was asked for, and works; what is wrong is one line, and nothing is written.
func TestNetworkAdd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	dir := t.TempDir()
	add := func(args ...string) netsetuptest.Result {
		return m.nsinit(t, append([]string{"network", "add", "--network-config-dir", dir}, args...)...)
	}
	add("--subnet", "10.81.0.0/24", "--gateway", "10.81.0.254", "--ip-range", "10.81.0.128/26", "--ipv6", "-o", "mtu=1400", "one").OK(t)
	add("--internal", "--interface-name", "br-two", "two").OK(t)
	add("three").OK(t)
	run := func(network string) string {
		return m.run(t, "--network-config-dir", dir, "--network", network, "--", "sh", "-c", "ip -o -4 addr show eth0; ip route; ip -o -6 addr show eth0 scope global; cat /sys/class/net/eth0/mtu").OK(t).Stdout
	}
	if got := run("one"); !strings.Contains(got, "10.81.0.128/24") || !strings.Contains(got, "default via 10.81.0.254") || !strings.Contains(got, "inet6 fd") || !strings.Contains(got, "1400") {
		t.Errorf("one: %s", got)
	}
	if got := run("two"); strings.Contains(got, "default") || strings.Contains(got, "inet6") {
		t.Errorf("two: %s", got)
	}
	if got := run("three"); !strings.Contains(got, "default via 10.") {
		t.Errorf("three: %s", got)
	}
	files, _ := os.ReadDir(dir)
	for _, args := range [][]string{
		{"one"},
		{"nsinit"},
		{"a b"},
		{"../x"},
		{"--subnet", "10.82.0.1/24", "x"},
		{"--subnet", "10.82.0.0/24", "--gateway", "10.83.0.1", "x"},
		{"--subnet", "10.82.0.0/24", "--subnet", "10.82.0.0/25", "x"},
		{"--ip-range", "10.82.0.9-10.82.0.1", "x"},
		{"-d", "frob", "x"},
		{"-o", "mtu=12", "x"},
		{"-o", "speed=12", "x"},
		{"-o", "parent=eth0", "x"},
		{"-d", "macvlan", "--ipv6", "x"},
		{"--ipam-driver", "none", "--subnet", "10.82.0.0/24", "x"},
	} {
		if err := oneLine(add(args...).Want(t, 125)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	if after, _ := os.ReadDir(dir); len(after) != len(files) {
		t.Errorf("written all the same: %v", after)
	}
}
