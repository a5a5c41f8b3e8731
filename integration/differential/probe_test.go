package differential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// What is in nftables or iptables is compared by what it does to packets. A probe is a connection and a datagram to a
// service that answers with the address that it sees. The words of a case:
//
//	out             from the container to the outside, which knows no way back
//	in              from the outside, which has a route by the host, to the container's port 80
//	host            from the host to the container and back
//	port:PROTO:N    to the host's port N: from outside, from the host at its address and at its loopback, from the container
//	spoof           from the container to the outside, once it has taken another MAC address
func (s *stage) probe(t *testing.T, word string, f facts) {
	t.Helper()
	kind, rest, _ := strings.Cut(word, ":")
	switch kind {
	case "out":
		serve(t, s.outside.Node, 80)
		s.both(f, "out", s.inside.Node, s.outside.V4, s.outside.V6, 80)
	case "spoof":
		s.inside.Run(t, "ip", "link", "set", s.tc.ifName, "address", "02:00:00:00:66:66").OK(t)
		serve(t, s.outside.Node, 81)
		s.both(f, "spoof", s.inside.Node, s.outside.V4, s.outside.V6, 81)
	case "in", "host":
		serve(t, s.inside.Node, 80)
		from := s.machine.Node
		if kind == "in" {
			from = s.outside.Node
			for _, a := range s.addresses(t) {
				via := map[bool]netip.Addr{true: s.outside.HostV4, false: s.outside.HostV6}[a.Is4()]
				from.Run(t, "ip", "route", "replace", a.String(), "via", via.String()).OK(t)
			}
		}
		for _, a := range s.addresses(t) {
			f.ask(kind, from, "tcp", a, 80)
			f.ask(kind, from, "udp", a, 80)
		}
	case "port":
		s.ports(t, f, rest)
	default:
		t.Fatalf("probe %q: no such word", word)
	}
}

// both asks both families, TCP and UDP.
func (s *stage) both(f facts, what string, from *netsetuptest.Node, v4, v6 netip.Addr, port uint16) {
	for _, to := range []netip.Addr{v4, v6} {
		for _, network := range []string{"tcp", "udp"} {
			f.ask(what, from, network, to, port)
		}
	}
}

// ports asks a published port from everywhere.
func (s *stage) ports(t *testing.T, f facts, rest string) {
	t.Helper()
	proto, number, _ := strings.Cut(rest, ":")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s.inside.Node, 80)
	serve(t, s.inside.Node, 81)
	what := "port " + number
	for _, to := range []netip.Addr{s.outside.HostV4, s.outside.HostV6} {
		f.ask(what+" from outside", s.outside.Node, proto, to, uint16(port))
		f.ask(what+" from the host", s.machine.Node, proto, to, uint16(port))
		f.ask(what+" from inside", s.inside.Node, proto, to, uint16(port))
	}
	for _, to := range []string{"127.0.0.1", "::1"} {
		f.ask(what+" from the host", s.machine.Node, proto, netip.MustParseAddr(to), uint16(port))
	}
}

// patience is how long a probe waits for its answer: a millisecond is enough, where nobody else works.
func patience() time.Duration {
	if emulated {
		return 5 * time.Second
	}
	return 500 * time.Millisecond
}

// ask notes what the service sees, or that it can't be reached.
func (f facts) ask(what string, from *netsetuptest.Node, network string, to netip.Addr, port uint16) {
	saw, err := whoAmI(from, network, netip.AddrPortFrom(to, port))
	if err != nil {
		saw = "no answer"
		if errors.Is(err, syscall.ECONNREFUSED) {
			saw = "refused"
		}
	}
	f.put("probe "+what, fmt.Sprint(network, " ", to), saw)
}

func whoAmI(from *netsetuptest.Node, network string, to netip.AddrPort) (string, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		d := net.Dialer{Timeout: patience()}
		c, err = d.DialContext(context.Background(), network, to.String())
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience()))
	if _, err := c.Write([]byte("who")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// serve answers on a port with the address that asks, until t ends. Twice on one port is once.
func serve(t *testing.T, n *netsetuptest.Node, port int) {
	t.Helper()
	var ln net.Listener
	var pc *net.UDPConn
	err := n.Do(func() (err error) {
		if ln, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)); err != nil {
			return nil //nolint:nilerr // it serves already
		}
		pc, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatalf("%s: serve: %v", n.Name, err)
	}
	if ln == nil {
		return
	}
	t.Cleanup(func() { ln.Close(); pc.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(addrOf(c.RemoteAddr())))
			_ = c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}()
}

func addrOf(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return err.Error()
	}
	return ap.Addr().Unmap().String()
}
