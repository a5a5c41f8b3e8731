package integration

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A point-to-point network: no bridge, the host's end has the gateway's address.
func TestPointToPoint(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out := m.Outside(t)
	path := filepath.Join(t.TempDir(), "p2p.conflist")
	write(t, path, `{"cniVersion": "1.1.0", "name": "p2p", "plugins": [{"type": "ptp", "ipMasq": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.73.0.0/24"}], [{"subnet": "fd73::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}`)
	a, b := m.detached(t, "a", "--network", path, "sleep", "60"), m.detached(t, "b", "--network", path, "sleep", "60")
	if slices.ContainsFunc(m.Links(t), func(l netsetuptest.Link) bool { return l.LinkInfo.Kind == "bridge" }) {
		t.Error("a bridge was made")
	}
	v4, v6 := b.addrs(t)
	inside, outside := b.node(t).Echo(t), out.Echo(t)
	for _, addr := range []netip.Addr{v4, v6} {
		if err := reaches(m.Node, addr, inside, 1500); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []netip.Addr{out.V4, out.V6} {
		if err := reaches(a.node(t), addr, outside, 1500); err != nil {
			t.Error(err)
		}
	}
}

// MTU of the uplink by default.
func TestMTUOfUplink(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out := m.Outside(t)
	m.Run(t, "ip", "link", "set", out.HostIf, "mtu", "1400").OK(t)
	out.Run(t, "ip", "link", "set", "eth0", "mtu", "1400").OK(t)
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	if l := c.node(t).Link(t, "eth0"); l.MTU != 1400 {
		t.Errorf("MTU %d, want the uplink's 1400", l.MTU)
	}
	echo := out.Echo(t)
	for _, addr := range []netip.Addr{out.V4, out.V6} {
		if err := reaches(c.node(t), addr, echo, 1400); err != nil {
			t.Error(err)
		}
	}
}

// The default subnets overlap no route of the host's, and are remembered.
func TestDefaultSubnetsOverlapNothing(t *testing.T) {
	t.Parallel()
	long(t)
	first := newMachine(t)
	first.run(t, "--network", "bridge", "true").OK(t)
	taken := first.Link(t, "nsinit0").Addr(t, 4).Masked()

	m := newMachine(t)
	p := m.Peer(t, "near")
	m.Run(t, "ip", "route", "add", taken.String(), "via", p.V4.String()).OK(t)
	m.run(t, "--network", "bridge", "true").OK(t)
	got := m.Link(t, "nsinit0")
	if got.Addr(t, 4).Overlaps(taken) {
		t.Errorf("%v overlaps the host's route to %v", got.Addr(t, 4), taken)
	}
	v6 := got.Addr(t, 6)
	m.Run(t, "ip", "route", "del", taken.String()).OK(t)
	m.Run(t, "ip", "link", "del", "nsinit0").OK(t)
	m.run(t, "--network", "bridge", "true").OK(t)
	if again := m.Link(t, "nsinit0"); again.Addr(t, 4) != got.Addr(t, 4) || again.Addr(t, 6) != v6 {
		t.Errorf("subnets %v and %v, were %v and %v", again.Addr(t, 4), again.Addr(t, 6), got.Addr(t, 4), v6)
	}
}

func TestNoForwardingRefuses(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.Outside(t)
	m.run(t, "--network", "none", "true").OK(t)
	own := []string{"file /var/lib/"} // the network's subnets are remembered
	before := m.Settled(t).Without(own...)
	r := m.run(t, "--network", "bridge", "--no-forwarding", "true").Want(t, 125)
	if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "forwarding") {
		t.Errorf("%v: stderr %q", err, r.Stderr)
	}
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(before.Grep("sysctl net/ipv4/ip_forward").Grep("all/forwarding"), m.Snapshot(t).Grep("sysctl net/ipv4/ip_forward").Grep("all/forwarding")); d != "" {
			return fmt.Errorf("the host was changed:\n%s", d)
		}
		return nil
	})
	m.nsinit(t, "gc", "--all").OK(t)
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(before, m.Snapshot(t).Without(own...)); d != "" {
			return fmt.Errorf("the host was changed:\n%s", d)
		}
		return nil
	})
}

// Forwarding is switched on for the interfaces concerned, and said.
func TestForwardingIsSaid(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.Outside(t)
	r := m.run(t, "--network", "bridge", "true").OK(t)
	if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "forwarding") || !strings.Contains(r.Stderr, "gc --all") {
		t.Errorf("%v: stderr %q, want what was changed and how it is undone", err, r.Stderr)
	}
	if r := m.run(t, "--network", "bridge", "true").OK(t); r.Stderr != "" {
		t.Errorf("said again: %q", r.Stderr)
	}
	if got := m.Run(t, "cat", "/proc/sys/net/ipv4/ip_forward").OK(t).Line(); got != "0" {
		t.Error("forwarding is on for all of the host's interfaces")
	}
}

// A table of somebody else's that drops our traffic is named, with a remedy, and left alone.
func TestForeignTableThatDrops(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	m.Run(t, "sh", "-c", "nft add table inet corp && nft add chain inet corp filter '{ type filter hook forward priority 0; policy drop; }'").OK(t)
	before := m.Snapshot(t).Grep("nft table inet corp")
	r := m.run(t, "--network", "bridge", "true").OK(t)
	if !strings.Contains(r.Stderr, "corp") || !strings.Contains(r.Stderr, "nft ") {
		t.Errorf("stderr %q, want the table's name and a command", r.Stderr)
	}
	if d := netsetuptest.Diff(before, m.Snapshot(t).Grep("nft table inet corp")); d != "" {
		t.Errorf("the table was edited:\n%s", d)
	}
}

// A resolver that listens on the host's loopback alone can be asked from inside.
func TestResolverOnLoopback(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	const resolver = "127.0.0.53"
	serveOn(t, m, resolver)
	hosts := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, hosts, "nameserver "+resolver+"\n")
	m.Run(t, "mount", "--bind", hosts, "/etc/resolv.conf").OK(t)
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "--network", "bridge", "sleep", "60")
	inside := c.exec(t, "cat", "/etc/resolv.conf").OK(t).Stdout
	m.Run(t, "umount", "/etc/resolv.conf").OK(t)
	asked := 0
	for line := range strings.Lines(inside) {
		if server, ok := strings.CutPrefix(strings.TrimSpace(line), "nameserver "); ok {
			asked++
			at := netip.AddrPortFrom(netip.MustParseAddr(server), 53)
			for _, network := range []string{"udp", "tcp"} {
				if err := c.node(t).Exchange(network, at, 100, soon()); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if asked == 0 {
		t.Errorf("no resolver inside: %q", inside)
	}
}

// serveOn answers UDP and TCP on port 53 of addr with what it is sent.
func serveOn(t testing.TB, m *machine, addr string) {
	t.Helper()
	err := m.Do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr), Port: 53})
		if err != nil {
			return err
		}
		ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(addr), Port: 53})
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close(); ln.Close() })
		go netsetuptest.ServeEcho(ln, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A resolv.conf that leads nowhere is no reason not to start.
func TestDanglingResolvConf(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.Outside(t)
	m.OwnEtc(t)
	m.Run(t, "ln", "-sfn", "/run/nowhere/resolv.conf", "/etc/resolv.conf").OK(t)
	m.run(t, "--rootfs", newRootfs(t), "--network", "bridge", "cat", "/etc/resolv.conf").OK(t)
	m.run(t, "--rootfs", newRootfs(t), "--network", "bridge", "--dns", "192.0.2.1", "cat", "/etc/resolv.conf").OK(t)
	m.Run(t, "umount", "/etc").OK(t)
}

// Many at once: each gets an address of its own.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.run(t, "--network", "bridge", "true").OK(t)
	before := m.Settled(t)
	const starters = 8
	var procs []*netsetuptest.Process
	for range starters {
		procs = append(procs, m.start(t, with([]string{"--network", "bridge"}, script("ip -o -4 addr show eth0 | awk '{print $4}'"))...))
	}
	seen := map[string]bool{}
	for _, p := range procs {
		r := p.Wait(t).OK(t)
		if a := r.Line(); a == "" || seen[a] {
			// One that has ended may have given its address to the next.
			t.Logf("address %q again", a)
		} else {
			seen[a] = true
		}
	}
	m.Await(t, before)
}
