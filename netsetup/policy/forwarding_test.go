package policy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// bothWays runs f as on this kernel, and as on one without force_forwarding.
func bothWays(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	for name, old := range map[string]bool{"kernel": false, "before 6.17": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.opt.noForce = old
			f(t, l)
		})
	}
}

// Switching forwarding on for containers must not make the host a router for its
// neighbours, and must not open the containers to them.
func TestNothingElseIsForwarded(t *testing.T) {
	bothWays(t, func(t *testing.T, l *lab) {
		third := l.Peer(t, "third")
		l.ip(t, "link add br9 type bridge") // somebody else's guests
		l.ip(t, "addr add 10.99.0.1/24 dev br9")
		l.ip(t, "addr add fd99::1/64 dev br9 nodad")
		l.ip(t, "link set br9 up")
		guest, guestA := l.container(t, "br9", 99, 2)
		c, a := l.container(t, "nsi0", 77, 2)
		check(t, l.masquerade(a))
		routeVia(t, l.out, third.V4, third.V6, a.Addresses[0].Addr(), a.Addresses[1].Addr(), guestA.Addresses[0].Addr(), guestA.Addresses[1].Addr())
		routeVia(t, third, l.out.V4, l.out.V6)
		for _, to := range []netip.Addr{l.out.V4, l.out.V6} {
			check(t, c.Ping(to, 56, soon))
			mustNotArrive(t, guest, to)
			mustNotArrive(t, third.Node, to)
		}
		for _, to := range []netip.Addr{third.V4, third.V6} {
			mustNotArrive(t, l.out.Node, to)
		}
		for i := range 2 {
			mustNotArrive(t, l.out.Node, a.Addresses[i].Addr())
			mustNotArrive(t, l.out.Node, guestA.Addresses[i].Addr())
		}
		exchanges(t, c, l.out.Echo(t), l.out.V4, l.out.V6)
	})
}

// routeVia gives a peer routes to addresses by way of the host.
func routeVia(t *testing.T, p *netsetuptest.Peer, to ...netip.Addr) {
	t.Helper()
	for _, a := range to {
		gw := p.HostV4
		if a.Is6() {
			gw = p.HostV6
		}
		p.Run(t, "ip", "route", "add", netip.PrefixFrom(a, a.BitLen()).String(), "via", gw.String()).OK(t)
	}
}

func mustNotArrive(t *testing.T, from *netsetuptest.Node, to netip.Addr) {
	t.Helper()
	if err := from.Ping(to, 56, never); err == nil {
		t.Errorf("%s reaches %s", from.Name, to)
	}
}

// The host's own default route came from a router's advertisement. It must be there
// after forwarding was switched on, and the next advertisement must still count.
func TestAdvertisedRouteSurvives(t *testing.T) {
	bothWays(t, func(t *testing.T, l *lab) {
		l.ip(t, "-6 route del default")
		l.out.Run(t, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1").OK(t)
		advertise(t, l, 1800)
		before := advertisedRoute(t, l)
		sysctls := l.sysctls(t)
		c, a := l.container(t, "nsi0", 77, 2)
		check(t, l.masquerade(a))
		if got := advertisedRoute(t, l); got != before {
			t.Fatalf("the route was %q and is %q", before, got)
		}
		check(t, c.Ping(netsetuptest.BeyondV6, 56, soon))
		l.ip(t, "-6 route flush proto ra")
		advertise(t, l, 1200)
		advertisedRoute(t, l)
		check(t, c.Ping(netsetuptest.BeyondV6, 56, soon))
		check(t, l.undoHost())
		if got := without(l.sysctls(t), "vc77"); got != sysctls {
			t.Errorf("sysctls differ:\n%s\nwere:\n%s", got, sysctls)
		}
		advertisedRoute(t, l)
	})
}

// advertise sends a router advertisement from the outside.
func advertise(t *testing.T, l *lab, lifetime uint16) {
	t.Helper()
	body := make([]byte, 12)
	body[0] = 64
	binary.BigEndian.PutUint16(body[2:], lifetime)
	err := l.out.Do(func() error {
		c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.IPv6PacketConn().SetMulticastHopLimit(255); err != nil {
			return err
		}
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		// The kernel fills the checksum of ICMPv6 sockets in. A router's source is link-local.
		msg := icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: body}}
		raw, err := msg.Marshal(nil)
		if err != nil {
			return err
		}
		cm := &ipv6.ControlMessage{IfIndex: eth.Index, HopLimit: 255, Src: linkLocal(eth)}
		_, err = c.IPv6PacketConn().WriteTo(raw, cm, &net.UDPAddr{IP: net.IPv6linklocalallnodes})
		return err
	})
	check(t, err)
}

func linkLocal(i *net.Interface) net.IP {
	addrs, _ := i.Addrs()
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && p.IP.IsLinkLocalUnicast() {
			return p.IP
		}
	}
	return nil
}

// advertisedRoute waits for the default route that an advertisement brought.
func advertisedRoute(t *testing.T, l *lab) string {
	t.Helper()
	var route string
	netsetuptest.Poll(t, func() error {
		route = l.Run(t, "ip", "-6", "route", "show", "default", "proto", "ra").OK(t).Stdout
		if route == "" {
			return fmt.Errorf("no default route by advertisement")
		}
		return nil
	})
	words := strings.Fields(route)
	return strings.Join(words[:min(5, len(words))], " ") // default via GATEWAY dev DEVICE
}

// On old kernels only the switch for all devices is left changed: the host stays a host.
func TestOldKernelKeepsHostsHosts(t *testing.T) {
	l := newLab(t)
	l.opt.noForce = true
	l.Run(t, "sysctl", "-qw", "net.ipv6.conf.lo.forwarding=1").OK(t) // somebody's will
	before := l.sysctls(t)
	_, a := l.container(t, "nsi0", 77, 2)
	a.Addresses = a.Addresses[1:]
	check(t, l.masquerade(a))
	want := strings.Replace(before, "ipv6/conf/all/forwarding:0", "ipv6/conf/all/forwarding:1", 1)
	if got := without(l.sysctls(t), "vc77"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	check(t, l.undoHost())
	if got := without(l.sysctls(t), "vc77"); got != before {
		t.Errorf("after undo:\n%s\nwant:\n%s", got, before)
	}
}

func TestNoForwardingRefuses(t *testing.T) {
	l := newLab(t)
	l.opt.NoForwarding = true
	before := l.sysctls(t)
	_, a := l.container(t, "nsi0", 77, 2)
	err := l.masquerade(a)
	want := "forwarding: net.ipv4.conf.to-outside.forwarding is 0, and --no-forwarding forbids to change it"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := without(l.sysctls(t), "vc77"); got != before || len(l.warnings) != 0 {
		t.Errorf("something was changed: %v\n%s", l.warnings, got)
	}
	l.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1").OK(t)
	check(t, l.masquerade(a))
	if _, err := os.Stat(ledgerPath(l.opt.StateDir)); err == nil {
		t.Error("a host that forwards already has a record of changes")
	}
}

// Once the host's owner switches forwarding on for all, nsinit's restrictions go, and
// undoing doesn't touch what is his.
func TestOwnerTakesOver(t *testing.T) {
	bothWays(t, func(t *testing.T, l *lab) {
		third := l.Peer(t, "third")
		_, a := l.container(t, "nsi0", 77, 2)
		check(t, l.masquerade(a))
		l.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1").OK(t)
		owner := l.sysctls(t)
		routeVia(t, l.out, third.V4, third.V6)
		routeVia(t, third, l.out.V4, l.out.V6)
		mustNotArrive(t, l.out.Node, third.V4)
		check(t, l.masquerade(a))
		check(t, l.out.Ping(third.V4, 56, soon))
		check(t, l.out.Ping(third.V6, 56, soon))
		check(t, l.undoHost())
		if got := l.sysctls(t); got != owner {
			t.Errorf("the owner's sysctls were changed:\n%s\nwere:\n%s", got, owner)
		}
	})
}

// The same without another start in between.
func TestUndoAfterOwnerTookOver(t *testing.T) {
	bothWays(t, func(t *testing.T, l *lab) {
		_, a := l.container(t, "nsi0", 77, 2)
		check(t, l.masquerade(a))
		l.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1").OK(t)
		owner := l.sysctls(t)
		check(t, l.undoHost())
		if got := l.sysctls(t); got != owner {
			t.Errorf("the owner's sysctls were changed:\n%s\nwere:\n%s", got, owner)
		}
	})
}

// Somebody else's guests, with their own forwarding, and a port published for one, go
// on as before.
func TestOthersGuestsGoOn(t *testing.T) {
	l := newLab(t)
	l.ip(t, "link add br9 type bridge")
	l.ip(t, "addr add 10.99.0.1/24 dev br9")
	l.ip(t, "link set br9 up")
	guest, _ := l.container(t, "br9", 99, 2)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	l.Run(t, "sysctl", "-qw", "net.ipv4.conf.br9.forwarding=1").OK(t)
	in, out := guest.Echo(t), l.out.Echo(t)
	l.nft(t, fmt.Sprintf(`table ip theirs {
		chain inward { type nat hook prerouting priority -100; iifname "%s" tcp dport 8080 dnat to 10.99.0.2:%d; };
		chain outward { type nat hook postrouting priority 100; oifname "%s" masquerade; };
	}`, l.out.HostIf, in.Port, l.out.HostIf))
	exchanges(t, guest, out, l.out.V4)
	check(t, l.out.Exchange("tcp", netip.AddrPortFrom(l.out.HostV4, 8080), 100, soon))
}

// What someone else wrote since stays.
func TestUndoLeavesOthersChanges(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	l.Run(t, "sysctl", "-qw", "net.ipv4.conf.nsi0.forwarding=2").OK(t) // means the same as 1
	l.ip(t, "link del "+l.out.HostIf)                                  // its sysctls are gone
	check(t, l.undoHost())
	if got := l.sysctls(t); !strings.Contains(got, "ipv4/conf/nsi0/forwarding:2") {
		t.Errorf("sysctls:\n%s", got)
	}
}

// A bridge that was removed and made again, and an uplink that changed, are seen.
func TestForwardingFollowsDevices(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	l.Run(t, "sysctl", "-qw", "net.ipv4.conf."+l.out.HostIf+".forwarding=0").OK(t)
	l.Run(t, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.nsi0.forwarding=0").OK(t) // force_forwarding too
	if c.Ping(l.out.V4, 56, never) == nil || c.Ping(l.out.V6, 56, never) == nil {
		t.Fatal("forwarded without the sysctls: the test is wrong")
	}
	check(t, l.masquerade(a))
	check(t, c.Ping(l.out.V4, 56, soon))
	check(t, c.Ping(l.out.V6, 56, soon))
}

func TestHostWithoutUplink(t *testing.T) {
	l := newLab(t)
	l.ip(t, "route del default")
	l.ip(t, "-6 route del default")
	l.ip(t, "-6 route add unreachable default")
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	if got := l.sysctls(t); !strings.Contains(got, "ipv4/conf/nsi0/forwarding:1") {
		t.Errorf("sysctls:\n%s", got)
	}
}

// The record must be there before the sysctl: a start that can't write it changes
// nothing.
func TestRecordComesFirst(t *testing.T) {
	l := newLab(t)
	before := l.sysctls(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, os.Mkdir(ledgerPath(l.opt.StateDir)+".new", 0o700))
	if err := l.masquerade(a); err == nil || !strings.Contains(err.Error(), "host record: open") {
		t.Errorf("got %v", err)
	}
	if got := without(l.sysctls(t), "vc77"); got != before {
		t.Errorf("something was changed:\n%s", got)
	}
}

func TestLockIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(t.Context(), dir)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := takeLock(ctx, dir); err == nil || !strings.Contains(err.Error(), "host.lock: held by another process") {
		t.Errorf("got %v", err)
	}
	check(t, first.remove())
	second, err := takeLock(t.Context(), dir) // of the new file; the old one is locked still
	check(t, err)
	second.release()
	first.release()
}

func TestSysctlNames(t *testing.T) {
	if got := forwarding4("eth0.100").String(); got != "net.ipv4.conf.eth0/100.forwarding" {
		t.Error(got)
	}
	err := sysctl("ipv4/conf/no such/forwarding").write("1")
	if want := "sysctl: net.ipv4.conf.no such.forwarding: write: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLedgerOfAnotherBoot(t *testing.T) {
	dir := t.TempDir()
	l, err := readLedger(dir)
	check(t, err)
	l.append(change{Sysctl: "ipv4/conf/x/forwarding", Was: "0", Now: "1", Family: 4})
	l.open(opened{"x", 4, true})
	l.open(opened{"x", 4, true})
	check(t, l.save())
	again, err := readLedger(dir)
	check(t, err)
	if len(again.Changes) != 1 || len(again.Opened) != 1 {
		t.Errorf("read back: %+v", again)
	}
	l.Boot = "another"
	check(t, l.save())
	if again, err = readLedger(dir); err != nil || len(again.Changes) != 0 {
		t.Errorf("of another boot: %+v, %v", again, err)
	}
	check(t, os.WriteFile(ledgerPath(dir), []byte(`{"version":9}`), 0o600))
	if _, err = readLedger(dir); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("of another version: %v", err)
	}
	check(t, os.WriteFile(ledgerPath(dir), []byte(`{"vers`), 0o600))
	if _, err = readLedger(dir); err == nil {
		t.Error("a torn record was read")
	}
}

func TestExplainKeepsTheNumber(t *testing.T) {
	for _, n := range []unix.Errno{unix.EOPNOTSUPP, unix.EPERM, unix.ENOENT} {
		err := modules(explain(fmt.Errorf("conn.Receive: %w", n)))
		if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), n.Error()) {
			t.Errorf("%v", err)
		}
	}
}
