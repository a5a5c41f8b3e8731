package netsetuptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// An Echo answers TCP and UDP with what it is sent, on one port of both families.
type Echo struct {
	Port uint16
	mu   sync.Mutex
	seen []netip.Addr
}

// Seen returns the addresses that connections and datagrams came from, each once, in order.
func (e *Echo) Seen() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]netip.Addr(nil), e.seen...)
}

func (e *Echo) note(a net.Addr) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.seen {
		if s == ap.Addr().Unmap() {
			return
		}
	}
	e.seen = append(e.seen, ap.Addr().Unmap())
}

// Echo serves on n until t ends, on a port that is free.
func (n *Node) Echo(t testing.TB) *Echo {
	t.Helper()
	return n.EchoOn(t, 0)
}

// EchoOn serves on n until t ends, on a given port.
func (n *Node) EchoOn(t testing.TB, port uint16) *Echo {
	t.Helper()
	var ln net.Listener
	var pc *net.UDPConn
	err := n.Do(func() error {
		var err error
		// A port that is free for TCP may be taken for UDP, but not in a namespace of one's own.
		if ln, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)); err != nil {
			return err
		}
		pc, err = net.ListenUDP("udp", &net.UDPAddr{Port: ln.Addr().(*net.TCPAddr).Port})
		if err != nil {
			return err
		}
		return receiveDestination(pc)
	})
	if err != nil {
		t.Fatalf("%s: echo: %v", n.Name, err)
	}
	e := &Echo{Port: uint16(ln.Addr().(*net.TCPAddr).Port)}
	t.Cleanup(func() { ln.Close(); pc.Close() })
	go e.serveTCP(ln)
	go e.serveUDP(pc)
	return e
}

func (e *Echo) serveTCP(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		e.note(c.RemoteAddr())
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// serveUDP answers from the address that was asked: the kernel would take the one nearest to the asker.
func (e *Echo) serveUDP(c *net.UDPConn) {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		k, o, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return
		}
		e.note(net.UDPAddrFromAddrPort(from))
		_, _, _ = c.WriteMsgUDPAddrPort(buf[:k], oob[:o], from)
	}
}

// receiveDestination has the kernel tell each datagram's destination, as a message that can be sent back as the source
// (ipv6(7), IPV6_RECVPKTINFO). It does so for IPv4 on this socket as well.
func receiveDestination(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	return errors.Join(err, serr)
}

// Exchange sends size bytes from n to an Echo at to, over "tcp" or "udp", and wants them back within limit.
// Datagrams are sent once, unfragmented.
func (n *Node) Exchange(network string, to netip.AddrPort, size int, limit time.Duration) error {
	var c net.Conn
	err := n.Do(func() error {
		d := net.Dialer{Timeout: limit, Control: dontFragment}
		var err error
		c, err = d.DialContext(context.Background(), network, to.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	defer c.Close()
	if err := exchange(c, size, limit); err != nil {
		return fmt.Errorf("%s: %s %v: %d bytes: %w", n.Name, network, to, size, err)
	}
	return nil
}

func exchange(c net.Conn, size int, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("nsinit "), size/7+1)[:size]
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- err
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("came back changed")
	}
	return <-wrote
}

// dontFragment makes a datagram that is larger than the path's MTU an error instead of several packets.
func dontFragment(network, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		switch network {
		case "udp4":
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		case "udp6":
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
	return errors.Join(cerr, err)
}

// Ping sends one echo request of size payload bytes from n to an address, and wants the answer within limit.
// A link-local address needs its zone.
func (n *Node) Ping(to netip.Addr, size int, limit time.Duration) error {
	var c *icmp.PacketConn
	err := n.Do(func() error {
		var err error
		if to.Is4() {
			c, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		} else {
			c, err = icmp.ListenPacket("ip6:ipv6-icmp", "::")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	defer c.Close()
	if err := ping(c, to, size, time.Now().Add(limit)); err != nil {
		return fmt.Errorf("%s: ping %v: %d bytes: %w", n.Name, to, size, err)
	}
	return nil
}

func ping(c *icmp.PacketConn, to netip.Addr, size int, deadline time.Time) error {
	request, reply, proto := icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply), 1
	if to.Is6() {
		request, reply, proto = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	body := &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: int(time.Now().UnixNano() & 0xffff), Data: make([]byte, size)}
	b, err := (&icmp.Message{Type: request, Body: body}).Marshal(nil)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.WriteTo(b, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		k, _, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(proto, buf[:k])
		if err != nil || m.Type != reply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == body.ID && e.Seq == body.Seq {
			return nil
		}
	}
}

// ServeEcho answers TCP and UDP with what they send, until both are closed.
func ServeEcho(ln net.Listener, c *net.UDPConn) {
	e := &Echo{}
	go e.serveUDP(c)
	e.serveTCP(ln)
}
