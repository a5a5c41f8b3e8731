package integration

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
)

// advertise has p send router advertisements (RFC 4861) until the host has a default route from them.
func advertise(t testing.TB, m *machine, p *netsetuptest.Peer) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		if err := p.Do(sendAdvertisement); err != nil {
			return err
		}
		for _, r := range netsetuptest.FindRoute(m.Routes(t), "default") {
			if r.Protocol == "ra" && r.Dev == p.HostIf {
				return nil
			}
		}
		return fmt.Errorf("no default route from an advertisement: %v", m.Routes(t))
	})
}

func sendAdvertisement() error {
	const hopLimit, lifetime = 255, 1800 // any other hop limit is ignored
	c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.IPv6PacketConn().SetMulticastHopLimit(hopLimit); err != nil {
		return err
	}
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	body := make([]byte, 12)
	binary.BigEndian.PutUint16(body[2:], lifetime)
	body = append(body, prefixOption(netip.MustParsePrefix("2001:db8:aaaa::/64"))...)
	b, err := (&icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: body}}).Marshal(nil)
	if err != nil {
		return err
	}
	to := &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: eth0.Name}
	_, err = c.WriteTo(b, to)
	return err
}

// prefixOption is a prefix information option: on the link, and good for addresses.
func prefixOption(p netip.Prefix) []byte {
	const kind, words, onLinkAutonomous, seconds = 3, 4, 0xc0, 3600
	b := []byte{kind, words, byte(p.Bits()), onLinkAutonomous}
	b = binary.BigEndian.AppendUint32(b, seconds)
	b = binary.BigEndian.AppendUint32(b, seconds)
	b = binary.BigEndian.AppendUint32(b, 0)
	return append(b, p.Addr().AsSlice()...)
}
