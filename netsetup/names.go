package netsetup

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The checks below say why a value can't be used, in half a line that goes
// behind the value: "16 bytes; at most 15". They refuse what the kernel takes
// and something later trips over: dev_valid_name allows "%" and ESC, and
// __dev_alloc_name makes a0 of "a%d".

const (
	maxIfName  = 15 // IFNAMSIZ is 16 with the final NUL
	maxNetwork = 255
	minMTU     = 68    // ETH_MIN_MTU, what a veth takes
	maxMTU     = 65535 // ETH_MAX_MTU
	minMTUIPv6 = 1280  // IPV6_MIN_MTU: below, the kernel takes IPv6 off the device
)

// faultf describes a value that can't be used: `where: "value": reason`.
func faultf(where, value, format string, args ...any) error {
	reason := fmt.Errorf(format, args...)
	if where == "" {
		return fmt.Errorf("%s: %w", quoted(value), reason)
	}
	return fmt.Errorf("%s: %s: %w", where, quoted(value), reason)
}

// quoted returns s in quotes, escaped, cut at 64 bytes.
func quoted(s string) string {
	const limit = 64
	if len(s) <= limit {
		return strconv.Quote(s)
	}
	cut := limit
	for cut > limit-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}

// CheckIfName says why name can't be an interface's name, nil if it can. The
// error is a reason without the name.
func CheckIfName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty; 1 to %d bytes, as eth0", maxIfName)
	case len(name) > maxIfName:
		return fmt.Errorf("%d bytes; an interface's name has at most %d", len(name), maxIfName)
	case name == "." || name == "..":
		return fmt.Errorf("no name for an interface; eth0 is one")
	case name == "all" || name == "default":
		return fmt.Errorf("taken by the kernel's settings for every interface; eth0 is one")
	case name == "lo":
		return fmt.Errorf("the loopback interface, which every container has; name it eth0")
	case name[0] == '-':
		return fmt.Errorf("reads like a flag; start it with a letter")
	}
	return checkRunes(name, "/:%")
}

// checkRunes refuses space, control characters, what isn't UTF-8, and the bytes of bad.
func checkRunes(name, bad string) error {
	for i, r := range name {
		switch {
		case r == utf8.RuneError && !utf8.ValidString(name[i:]):
			return fmt.Errorf("byte %d is no UTF-8", i)
		case r <= unicode.MaxASCII && strings.IndexByte(bad, byte(r)) >= 0:
			return fmt.Errorf("%q is not allowed", r)
		case unicode.IsSpace(r):
			return fmt.Errorf("space is not allowed")
		case !unicode.IsPrint(r):
			return fmt.Errorf("character %q is not allowed", r)
		}
	}
	return nil
}

// CheckNetworkName says why name can't be a network's name: CNI wants a letter
// or digit, then letters, digits, "_", "." and "-".
func CheckNetworkName(name string) error {
	const form = "a letter or digit, then letters, digits, \"_\", \".\", \"-\""
	if name == "" {
		return fmt.Errorf("empty; %s", form)
	}
	if len(name) > maxNetwork {
		return fmt.Errorf("%d bytes; at most %d", len(name), maxNetwork)
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte("_.-", c) < 0) {
			return fmt.Errorf("character %q is not allowed here; %s", c, form)
		}
	}
	return nil
}

// checkPluginType says why t can't be a plugin's type: the type of a foreign
// plugin is a file in the search path that is executed (CVE-2021-20206).
func checkPluginType(t string) error {
	switch {
	case t == "":
		return fmt.Errorf("empty; a plugin's name, as bridge")
	case t == "." || t == "..":
		return fmt.Errorf("no plugin's name")
	case len(t) > maxNetwork:
		return fmt.Errorf("%d bytes; at most %d", len(t), maxNetwork)
	}
	return checkRunes(t, `/\`)
}

// ParseMAC reads the address of an Ethernet device: six bytes, not zero and no
// group address. The error is a reason without the value.
func ParseMAC(s string) (net.HardwareAddr, error) {
	const form = "six bytes in hex, the first even, as 02:00:00:00:00:01"
	mac, err := net.ParseMAC(s)
	if err != nil {
		return nil, fmt.Errorf("not a MAC address; %s", form)
	}
	if len(mac) != 6 {
		return nil, fmt.Errorf("%d bytes; %s", len(mac), form)
	}
	if [6]byte(mac) == [6]byte{} {
		return nil, fmt.Errorf("all zero; %s", form)
	}
	if mac[0]&1 != 0 {
		return nil, fmt.Errorf("a multicast address; %s", form)
	}
	return mac, nil
}

// CheckMTU says why mtu can't be the MTU of an interface with or without IPv6
// addresses; 0, the network's own choice, can.
func CheckMTU(mtu int, ipv6 bool) error {
	switch {
	case mtu == 0:
		return nil
	case mtu < minMTU || mtu > maxMTU:
		return fmt.Errorf("out of range; %d to %d", minMTU, maxMTU)
	case ipv6 && mtu < minMTUIPv6:
		return fmt.Errorf("too small for IPv6, which needs %d; or give no IPv6 address", minMTUIPv6)
	}
	return nil
}

// checkAddr says why a can't be the address of an interface, whatever its prefix.
func checkAddr(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("not an address")
	case a.Zone() != "":
		return fmt.Errorf("has a zone; leave out %%%s", a.Zone())
	case a.Is4In6():
		return fmt.Errorf("IPv4 in IPv6; write %s", a.Unmap())
	case a.IsUnspecified():
		return fmt.Errorf("means any address; give one of a host")
	case a.IsLoopback():
		return fmt.Errorf("a loopback address; every container has it on lo")
	case a.IsMulticast():
		return fmt.Errorf("a multicast address; give one of a host")
	case a.Is4() && a.As4()[0] == 0:
		return fmt.Errorf("in 0.0.0.0/8, which is no host's; give one of a host")
	case a.Is4() && a.As4()[0] >= 240:
		return fmt.Errorf("in 240.0.0.0/4, which is reserved; give one of a host")
	}
	return nil
}

// CheckAddress says why p can't be an interface's address. The kernel takes a
// network's own and its broadcast address; nobody can be reached there.
func CheckAddress(p netip.Prefix) error {
	a := p.Addr()
	if err := checkAddr(a); err != nil {
		return err
	}
	if p.Bits() < 0 {
		return nil // the pool's prefix length counts
	}
	if p.Bits() == 0 {
		return fmt.Errorf("the whole internet as one link; a prefix length as /24")
	}
	return checkHost(p.Masked(), a)
}

// checkHost says why a can't be a host in subnet: it is the network's address or
// the broadcast address, or lies elsewhere. /31 (RFC 3021) and /127 (RFC 6164)
// have neither, nor have /32 and /128.
func checkHost(subnet netip.Prefix, a netip.Addr) error {
	switch {
	case !subnet.Contains(a):
		return fmt.Errorf("outside of %s", subnet)
	case subnet.Bits() >= a.BitLen()-1:
		return nil
	case a == subnet.Addr():
		return fmt.Errorf("the address of network %s itself; %s is the first of a host", subnet, a.Next())
	case a.Is4() && a == lastAddr(subnet):
		return fmt.Errorf("the broadcast address of %s; %s is the last of a host", subnet, a.Prev())
	}
	return nil
}

// lastAddr returns the last address of p: the broadcast address in IPv4.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// CheckSubnet says why s can't be a pool: what host-local refuses, too, and
// what it takes and shouldn't: a start or an end that is no host's address.
func CheckSubnet(s Subnet) error {
	p := s.Prefix
	if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return fmt.Errorf("not a subnet; as 10.1.0.0/24 or fd00:1::/64")
	}
	if p != p.Masked() {
		return fmt.Errorf("has host bits; the subnet is %s", p.Masked())
	}
	if p.Addr().IsMulticast() || p.Addr().IsLoopback() {
		return fmt.Errorf("no addresses for hosts; as 10.1.0.0/24 or fd00:1::/64")
	}
	if most := p.Addr().BitLen() - 2; p.Bits() > most {
		return fmt.Errorf("too small for a pool; at most /%d", most)
	}
	for _, part := range []struct {
		name string
		addr netip.Addr
	}{{"gateway", s.Gateway}, {"rangeStart", s.RangeStart}, {"rangeEnd", s.RangeEnd}} {
		if !part.addr.IsValid() {
			continue
		}
		if err := checkHost(p, part.addr); err != nil {
			return faultf(part.name, part.addr.String(), "%w", err)
		}
	}
	if s.RangeStart.IsValid() && s.RangeEnd.IsValid() && s.RangeEnd.Less(s.RangeStart) {
		return fmt.Errorf("rangeEnd %s lies before rangeStart %s; exchange them", s.RangeEnd, s.RangeStart)
	}
	return nil
}

// CheckGateway says why gw can't be the default gateway of an interface with
// addrs. A link-local one is on the interface's link whatever addrs are; an
// address without a prefix length leaves the question to the pool.
func CheckGateway(gw netip.Addr, addrs []netip.Prefix) error {
	if err := checkAddr(gw); err != nil {
		return err
	}
	if gw.IsLinkLocalUnicast() && gw.Is6() {
		return nil
	}
	var subnets []string
	for _, p := range addrs {
		switch {
		case p.Addr() == gw:
			return fmt.Errorf("the interface's own address")
		case p.Addr().Is4() != gw.Is4():
			continue
		case p.Bits() < 0:
			return nil
		case p.Contains(gw):
			return checkHost(p.Masked(), gw)
		}
		subnets = append(subnets, p.Masked().String())
	}
	if len(subnets) == 0 {
		return nil // the pool's subnet decides
	}
	return fmt.Errorf("outside of %s; an address inside", strings.Join(subnets, " and "))
}
