package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// A published is a range of ports of the host, and, for KindPortmap, where it leads.
type published struct {
	host        netip.Addr // zero: all addresses of both families; unspecified: all of one
	first, last uint16
	proto       byte
	to          netip.AddrPort // the container's first port; zero for KindPort
}

func publishedOf(m netsetup.PortMapping) published {
	return published{
		host: m.HostIP.Unmap(), first: uint16(m.HostPort), last: uint16(m.HostPort + max(m.Count, 1) - 1),
		proto: protocolNumber(m.Protocol),
	}
}

func protocolNumber(name string) byte {
	switch name {
	case "udp":
		return unix.IPPROTO_UDP
	case "sctp":
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}

func protocolName(number byte) string {
	switch number {
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return "tcp"
}

// String is an object's name: HOST:PORTS/PROTOCOL, and >ADDRESS:PORT for KindPortmap.
func (p published) String() string {
	host := "*"
	switch {
	case p.host.Is6():
		host = "[" + p.host.String() + "]"
	case p.host.IsValid():
		host = p.host.String()
	}
	s := host + ":" + p.ports() + "/" + protocolName(p.proto)
	if p.to.IsValid() {
		s += ">" + p.to.String()
	}
	return s
}

func (p published) ports() string {
	if p.first == p.last {
		return strconv.Itoa(int(p.first))
	}
	return strconv.Itoa(int(p.first)) + "-" + strconv.Itoa(int(p.last))
}

// parsePublished reads what String wrote.
func parsePublished(s string) (published, error) {
	var p published
	bad := fmt.Errorf("%q is not of the form HOST:PORTS/PROTOCOL>ADDRESS:PORT", s)
	s, to, mapped := strings.Cut(s, ">")
	var err error
	if mapped {
		if p.to, err = netip.ParseAddrPort(to); err != nil {
			return p, bad
		}
	}
	ports, proto, ok := strings.Cut(s, "/")
	colon := strings.LastIndexByte(ports, ':')
	if p.proto = protocolNumber(proto); !ok || colon < 0 || protocolName(p.proto) != proto {
		return p, bad
	}
	if host := strings.Trim(ports[:colon], "[]"); host != "*" {
		if p.host, err = netip.ParseAddr(host); err != nil {
			return p, bad
		}
	}
	low, high, isRange := strings.Cut(ports[colon+1:], "-")
	if !isRange {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return p, bad
	}
	p.first, p.last = uint16(first), uint16(last)
	return p, nil
}

// overlaps tells whether two containers can't have both.
func (p published) overlaps(q published) bool { return p.mapping().Overlaps(q.mapping()) }

func (p published) mapping() netsetup.PortMapping {
	return netsetup.PortMapping{
		HostPort: int(p.first), Count: int(p.last-p.first) + 1, Protocol: protocolName(p.proto), HostIP: p.host,
		ContainerPort: int(p.to.Port()),
	}
}

// Taken ports are elements of a plain set, since they are only compared by nsinit.

// families are p for each family of its host.
func (p published) families() []published {
	if p.host.IsValid() {
		return []published{p}
	}
	v4, v6 := p, p
	v4.host, v6.host = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return []published{v4, v6}
}

// takenElements are one element, or one a family.
func (p published) takenElements() []nftables.SetElement {
	var list []nftables.SetElement
	for _, q := range p.families() {
		b := q.host.As16()
		key := append(b[:], p.proto, 0, 0, 0)
		key = appendPort(appendPort(key, p.first), p.last)
		list = append(list, nftables.SetElement{Key: key})
	}
	return list
}

// appendPort appends a port as a part of a key, which fills words of 4 bytes.
func appendPort(key []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(key, port), 0, 0)
}

const takenKeySize = 16 + 4 + 4 + 4

// takenOf reads an element of the set.
func takenOf(key []byte) (published, bool) {
	if len(key) != takenKeySize {
		return published{}, false
	}
	return published{
		host: netip.AddrFrom16([16]byte(key)).Unmap(), proto: key[16],
		first: binary.BigEndian.Uint16(key[20:]), last: binary.BigEndian.Uint16(key[24:]),
	}, true
}

// mapKey is the key of the map's element for packets to the ports: from and to the end of
// each part.
func (p published) mapKey() nftables.SetElement {
	low, high := p.host, p.host
	if !p.host.IsValid() || p.host.IsUnspecified() {
		if p.to.Addr().Is4() {
			low, high = netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
		} else {
			// Without ::1, which can't be had: a connection to it is refused, and doesn't wait.
			low, high = netip.IPv6Loopback().Next(), allOnes6()
		}
	}
	key := func(a netip.Addr, port uint16) []byte {
		return appendPort(append(a.AsSlice(), p.proto, 0, 0, 0), port)
	}
	return nftables.SetElement{Key: key(low, p.first), KeyEnd: key(high, p.last)}
}

func allOnes6() netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = 0xff
	}
	return netip.AddrFrom16(b)
}

// kept tells whether the container's ports are the host's, so that one element does for all.
func (p published) kept() bool { return p.first == p.to.Port() }

// A leap is one way to neighbours' and the host's own access: what comes from inside a
// prefix to a container through a published port is masqueraded, so that the answer comes
// back by the host.
type leap struct {
	from netip.Prefix
	to   netip.Addr
}

func (l leap) element() nftables.SetElement {
	low, high := boundsOf(l.from)
	to := l.to.AsSlice()
	return nftables.SetElement{Key: append(low, to...), KeyEnd: append(high, to...)}
}

// leapsOf are the leaps of a KindHairpin, whose name is a container's address and the length
// of the prefix from which it is reached: 0 for all. The host's 127.0.0.0/8 is reached from, but
// not its ::1, to which the kernel delivers nothing that comes from another device.
func leapsOf(p netip.Prefix) []leap {
	list := []leap{{p, p.Addr()}}
	if p.Bits() == 0 || p.Addr().Is6() {
		return list
	}
	return append(list, leap{netip.MustParsePrefix("127.0.0.0/8"), p.Addr()})
}
