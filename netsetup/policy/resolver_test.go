package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

var stub = netip.MustParseAddrPort("127.0.0.53:53")

// A nameServer answers with "NAME ADDRESS-OF-THE-CLIENT", over UDP and TCP.
func (l *lab) nameServer(t *testing.T, name, address string) {
	t.Helper()
	var pc net.PacketConn
	var ln net.Listener
	check(t, l.Do(func() (err error) {
		if pc, err = net.ListenPacket("udp4", address); err != nil {
			return err
		}
		ln, err = net.Listen("tcp4", address)
		return err
	}))
	t.Cleanup(func() { pc.Close(); ln.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(writerTo{pc, from}, "%s %s", name, from.(*net.UDPAddr).IP)
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

// ask sends a query from n and returns what the server said.
func ask(n *netsetuptest.Node, network, to string, limit time.Duration) (string, error) {
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = net.DialTimeout(network, to, limit)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, 512)
	k, err := c.Read(buf)
	return string(buf[:k]), err
}

func (l *lab) resolver(a netsetup.Attachment, upstream ...netip.AddrPort) (gateway netip.Addr, err error) {
	err = l.Do(func() error {
		gateway, err = Resolver(l.context(), l.host(), a, "owner", upstream, l.opt, l.record)
		return err
	})
	return gateway, err
}

func TestResolverOnLoopback(t *testing.T) {
	for _, calls := range []string{"0", "1"} {
		t.Run("bridge-nf-call "+calls, func(t *testing.T) { testResolverOnLoopback(t, calls) })
	}
}

func testResolverOnLoopback(t *testing.T, bridgeCalls string) {
	l := newLab(t)
	l.bridgeCalls(t, bridgeCalls)
	before := l.sysctls(t)
	l.nameServer(t, "stub", stub.String())
	c, a := l.container(t, "nsi0", 77, 2)
	other, oa := l.container(t, "nsi0", 77, 3)
	for _, at := range []netsetup.Attachment{a, a, oa} { // again is no error
		gateway, err := l.resolver(at, netip.MustParseAddrPort("[::1]:53"), stub)
		check(t, err)
		if gateway.String() != "10.77.0.1" {
			t.Fatalf("gateway %s", gateway)
		}
	}
	if len(l.warnings) != 1 || !strings.Contains(l.warnings[0], "net.ipv4.conf.nsi0.route_localnet=1") {
		t.Errorf("told: %v", l.warnings)
	}
	for _, n := range []*netsetuptest.Node{c, other} {
		for _, network := range []string{"udp", "tcp"} {
			said, err := ask(n, network, "10.77.0.1:53", soon)
			if err != nil || said != "stub 127.0.0.1" {
				t.Errorf("%s %s: %q %v", n.Name, network, said, err)
			}
		}
	}
	// One container's end doesn't take the other's away.
	check(t, l.Do(func() error {
		return Undo(l.context(), netsetup.Object{Kind: KindResolver, Name: "10.77.0.2@10.77.0.1>127.0.0.53:53", IfName: "nsi0"})
	}))
	if said, err := ask(c, "udp", "10.77.0.1:53", never); err == nil && said != "" {
		t.Logf("an old flow may live on: %s", said)
	}
	if _, err := ask(c, "tcp", "10.77.0.1:53", never); err == nil {
		t.Error("relayed after undo")
	}
	if said, err := ask(other, "tcp", "10.77.0.1:53", soon); err != nil {
		t.Errorf("the other container: %q %v", said, err)
	}
	for range 2 {
		check(t, l.undoAll())
		check(t, l.undoHost())
	}
	if got := without(l.sysctls(t), "vc77"); got != before {
		t.Errorf("sysctls differ:\n%s\nwere:\n%s", got, before)
	}
}

// route_localnet opens the host's loopback to the bridge. Nothing else of it may be
// reached, whatever a container writes into its packets.
func TestLoopbackStaysClosed(t *testing.T) {
	l := newLab(t)
	l.nameServer(t, "stub", stub.String())
	l.nameServer(t, "secret", "127.0.0.1:7777")
	l.nameServer(t, "open", "10.77.0.1:7778")
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	_, err := l.resolver(a, stub)
	check(t, err)
	if said, err := ask(c, "tcp", "10.77.0.1:53", soon); err != nil {
		t.Fatalf("%q %v", said, err)
	}
	c.Run(t, "sh", "-c", toLoopback).OK(t)
	l.Run(t, "tc", "filter", "del", "dev", "nsi0", "ingress").OK(t) // the table alone must do
	check(t, l.mustDrop(t, "ip daddr 127.0.0.0/8", func() {
		for _, to := range []string{"127.0.0.1:7777", "127.0.0.53:53"} {
			for _, network := range []string{"tcp", "udp"} {
				if said, err := ask(c, network, to, never); err == nil {
					t.Errorf("%s %s answers %q", network, to, said)
				}
			}
		}
	}))
	// A forged source makes services believe that the host itself asks.
	check(t, l.mustDrop(t, "ip saddr 127.0.0.0/8", func() {
		check(t, c.Do(func() error { return sendForged("127.0.0.1", "10.77.0.1", 7778) }))
		time.Sleep(never)
	}))
}

// Reloading Debian's nftables service flushes everything. What runs must not get at
// the host's loopback until the next start puts the table back.
func TestLoopbackStaysClosedWithoutTable(t *testing.T) {
	l := newLab(t)
	l.nameServer(t, "stub", stub.String())
	l.nameServer(t, "secret", "127.0.0.1:7777")
	l.nameServer(t, "open", "10.77.0.1:7778")
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	_, err := l.resolver(a, stub)
	check(t, err)
	c.Run(t, "sh", "-c", toLoopback).OK(t)
	l.nft(t, "flush ruleset")
	for _, network := range []string{"tcp", "udp"} {
		if said, err := ask(c, network, "127.0.0.1:7777", never); err == nil {
			t.Errorf("%s answers %q", network, said)
		}
	}
	if said, err := ask(c, "tcp", "10.77.0.1:7778", soon); err != nil {
		t.Errorf("the host's other services: %q %v", said, err)
	}
	l.Run(t, "tc", "filter", "del", "dev", "nsi0", "ingress").OK(t)
	if _, err := ask(c, "tcp", "127.0.0.1:7777", soon); err != nil {
		t.Errorf("the test is wrong: closed by something else: %v", err)
	}
	check(t, l.undoHost())
	if _, err := ask(c, "tcp", "127.0.0.1:7777", never); err == nil {
		t.Error("open after undo")
	}
}

// toLoopback gives 127/8 to eth0, inside a container whose owner may do so.
const toLoopback = "ip addr flush dev lo; ip link set lo down; ip route add 127.0.0.0/8 via 10.77.0.1 src 10.77.0.2; sysctl -qw net.ipv4.conf.all.route_localnet=1"

// mustDrop runs f and expects the loopback chain's rule to have dropped packets.
func (l *lab) mustDrop(t *testing.T, rule string, f func()) error {
	t.Helper()
	f()
	for line := range strings.Lines(l.ruleset(t)) {
		if strings.Contains(line, rule) && strings.Contains(line, "drop") {
			if strings.Contains(line, "packets 0 ") {
				return fmt.Errorf("no packet came to be dropped: %s", line)
			}
			return nil
		}
	}
	return fmt.Errorf("no rule with %s", rule)
}

// sendForged sends one datagram with a source of the sender's choice.
func sendForged(from, to string, port uint16) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	packet := append([]byte{0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0}, append(src.AsSlice(), dst.AsSlice()...)...)
	packet = append(packet, 0x30, 0x39, byte(port>>8), byte(port), 0, 9, 0, 0, '?')
	return unix.Sendto(s, packet, 0, &unix.SockaddrInet4{Addr: dst.As4()})
}

// A service of the host at the gateway keeps its queries.
func TestServiceAtGatewayKeepsPort(t *testing.T) {
	for _, address := range []string{"10.77.0.1:53", "0.0.0.0:53"} {
		t.Run(address, func(t *testing.T) {
			l := newLab(t)
			before := l.sysctls(t)
			l.nameServer(t, "own", address)
			if !strings.HasPrefix(address, "0.") {
				l.nameServer(t, "stub", stub.String())
			}
			c, a := l.container(t, "nsi0", 77, 2)
			gateway, err := l.resolver(a, stub)
			check(t, err)
			for _, network := range []string{"udp", "tcp"} {
				said, err := ask(c, network, netip.AddrPortFrom(gateway, 53).String(), soon)
				if err != nil || said != "own 10.77.0.2" {
					t.Errorf("%q %v", said, err)
				}
			}
			if got := without(l.sysctls(t), "vc77"); got != before || len(l.records) != 0 {
				t.Errorf("something was changed: %v\n%s", l.records, got)
			}
		})
	}
}

// The host's resolver may move between two containers with one address.
func TestResolverMoves(t *testing.T) {
	l := newLab(t)
	l.nameServer(t, "old", stub.String())
	l.nameServer(t, "new", "127.0.0.1:5353")
	c, a := l.container(t, "nsi0", 77, 2)
	for _, tt := range []struct{ upstream, want string }{
		{stub.String(), "old 127.0.0.1"}, {"127.0.0.1:5353", "new 127.0.0.1"},
	} {
		_, err := l.resolver(a, netip.MustParseAddrPort(tt.upstream))
		check(t, err)
		if said, err := ask(c, "tcp", "10.77.0.1:53", soon); err != nil || said != tt.want {
			t.Errorf("got %q %v, want %s", said, err, tt.want)
		}
	}
}

func TestNoWayToResolver(t *testing.T) {
	four := []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}
	six := []netip.Prefix{netip.MustParsePrefix("fd01::2/64")}
	gateways := []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd01::1")}
	if _, err := Resolver(t.Context(), nil, netsetup.Attachment{Strategy: "macvlan"}, "", []netip.AddrPort{stub}, Options{}, nil); !errors.Is(err, ErrNoRelay) {
		t.Errorf("macvlan: %v", err)
	}
	for name, tt := range map[string]struct {
		addresses []netip.Prefix
		gateways  []netip.Addr
		upstream  []netip.AddrPort
	}{
		"IPv6 upstream":    {four, gateways, []netip.AddrPort{netip.MustParseAddrPort("[::1]:53")}},
		"not the loopback": {four, gateways, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}},
		"no upstream":      {four, gateways, nil},
		"IPv6 container":   {six, gateways, []netip.AddrPort{stub}},
		"no gateway":       {four, gateways[1:], []netip.AddrPort{stub}},
	} {
		a := netsetup.Attachment{Network: "lan", Bridge: "nsi0", Addresses: tt.addresses, Gateways: tt.gateways}
		if _, err := Resolver(t.Context(), nil, a, "", tt.upstream, Options{}, nil); !errors.Is(err, ErrNoRelay) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQueryText(t *testing.T) {
	const text = "10.1.0.2@10.1.0.1>127.0.0.53:53"
	q, err := parseQuery(text)
	if err != nil || q.String() != text {
		t.Errorf("%s, %v", q, err)
	}
	want := []byte{127, 0, 0, 53, 0, 53, 0, 0}
	if got := q.element().Val; !slices.Equal(got, want) {
		t.Errorf("element %v, want %v", got, want)
	}
	for _, bad := range []string{"", "veth1", "10.1.0.2@10.1.0.1", "10.1.0.2>127.0.0.1:53", "fd01::2@10.1.0.1>127.0.0.1:53", "@>", "10.1.0.2@10.1.0.1>127.0.0.1"} {
		if q, err := parseQuery(bad); err == nil {
			t.Errorf("%q is taken as %s", bad, q)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("10.1.0.2@10.1.0.1>127.0.0.53:53")
	f.Add("veth1")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseQuery(s)
		if err != nil {
			return
		}
		if again, err := parseQuery(q.String()); err != nil || again != q {
			t.Errorf("%q became %v, %v", s, again, err)
		}
	})
}

func FuzzParseSocket(f *testing.F) {
	f.Add("3500007F:0035")
	f.Fuzz(func(_ *testing.T, s string) { parseSocket(s) })
}
