package netsetup

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What strategies do, in the words of ip(8), bridge(8) and sysctl(8). The functions
// here are the halves that strategies share; each says the same as its namesake does.

// A script collects commands.
type script []Command

func (s *script) host(format string, args ...any) {
	*s = append(*s, Command{Line: fmt.Sprintf(format, args...)})
}

func (s *script) inside(format string, args ...any) {
	*s = append(*s, Command{Inside: true, Line: fmt.Sprintf(format, args...)})
}

// word quotes s for sh(1) where it has to be.
func word(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+,=", r)
	}
	if s != "" && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// setting is a device's setting for sysctl(8). With slashes a name may have dots.
func setting(family, ifName, key, value string) string {
	return "sysctl -qw " + word("net/"+family+"/conf/"+ifName+"/"+key+"="+value)
}

// finishCommands are Inside.finish. noPrefixRoute goes with every address.
func finishCommands(a Attachment, noPrefixRoute bool) []Command {
	var s script
	s.arrive(a)
	s.settings(a)
	for _, p := range a.Addresses {
		options := ""
		if !a.DAD && p.Addr().Is6() {
			options += " nodad"
		}
		if noPrefixRoute {
			options += " noprefixroute"
		}
		s.inside("%s", addrCommand(a.IfName, p, options))
	}
	s.inside("ip link set %s up", word(a.IfName))
	s.routes(a)
	return s
}

func (s *script) arrive(a Attachment) {
	if a.Arrived != "" && a.Arrived != a.IfName {
		s.inside("ip link set %s down name %s", word(a.Arrived), word(a.IfName))
	}
}

func (s *script) settings(a Attachment) {
	if len(a.Addresses) > 0 && a.MAC != "" && a.MAC != deriveMAC(a.Addresses).String() {
		s.inside("%s", setting("ipv4", a.IfName, "arp_notify", "1"))
		s.inside("%s", setting("ipv6", a.IfName, "ndisc_notify", "1"))
	}
	switch {
	case a.NoIPv6:
		s.inside("%s", setting("ipv6", a.IfName, "disable_ipv6", "1"))
		return
	case len(a.Addresses) == 0:
		return
	}
	s.inside("%s", setting("ipv6", a.IfName, "keep_addr_on_down", "1"))
	for _, line := range ownRoutesCommands(a.IfName, a.DAD) {
		s.inside("%s", line)
	}
}

func ownRoutesCommands(ifName string, dad bool) []string {
	lines := []string{setting("ipv6", ifName, "accept_ra", "0")}
	if !dad {
		lines = append(lines, setting("ipv6", ifName, "accept_dad", "0"))
	}
	return lines
}

// addrCommand is addAddr.
func addrCommand(ifName string, p netip.Prefix, options string) string {
	line := "ip addr add " + p.String()
	if p.Addr().Is4() && p.Bits() < 31 {
		line += " broadcast +"
	}
	if p.Addr().Is4() && p.Addr().IsLinkLocalUnicast() {
		line += " scope link"
	}
	return line + " dev " + word(ifName) + options
}

// routes are addRoutes, in its order. Two to the same destination stand beside each
// other by prepend, which is what add is without looking for others.
func (s *script) routes(a Attachment) {
	var before []fibRoute
	add := func(r fibRoute) {
		verb := "add"
		if slices.ContainsFunc(before, func(b fibRoute) bool { return b.dst == r.dst && b.metric == r.metric && b.table == r.table }) {
			verb = "prepend"
		}
		before = append(before, r)
		s.inside("%s", routeCommand(a.IfName, verb, r))
	}
	for _, r := range a.Routes {
		if !r.Gateway.IsValid() {
			add(inner(0, r, a))
		}
	}
	for _, gw := range a.Gateways {
		add(fibRoute{dst: defaultRoute(gw), via: gw})
	}
	for _, r := range a.Routes {
		if r.Gateway.IsValid() {
			add(inner(0, r, a))
		}
	}
}

// routeCommand is newRoute.
func routeCommand(ifName, verb string, r fibRoute) string {
	var b strings.Builder
	b.WriteString("ip ")
	if r.dst.Addr().Is6() {
		b.WriteString("-6 ")
	}
	b.WriteString("route " + verb + " ")
	if r.dst.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.dst.String())
	}
	if r.via.IsValid() {
		if r.dst.Addr().Is4() && r.via.Is6() {
			b.WriteString(" via inet6 " + r.via.String())
		} else {
			b.WriteString(" via " + r.via.String())
		}
	}
	b.WriteString(" dev " + word(ifName))
	if r.onLink {
		b.WriteString(" onlink")
	}
	if r.src.IsValid() {
		b.WriteString(" src " + r.src.String())
	}
	if r.dst.Addr().Is4() && (r.via.IsValid() && r.scope != 0 || !r.via.IsValid() && r.scope != unix.RT_SCOPE_LINK) {
		b.WriteString(" scope " + scopeWord(r.scope))
	}
	for _, part := range []struct {
		name  string
		value int
	}{{"metric", r.metric}, {"table", r.table}, {"mtu", r.mtu}, {"advmss", r.advMSS}} {
		if part.value != 0 {
			fmt.Fprintf(&b, " %s %d", part.name, part.value)
		}
	}
	return b.String()
}

func scopeWord(scope uint8) string {
	switch scope {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	}
	return strconv.Itoa(int(scope))
}

// pair is addPair.
func (s *script) pair(name string, p pair, bridge string) {
	master := ""
	if bridge != "" {
		master = " master " + word(bridge)
	}
	const queues = "numtxqueues 1 numrxqueues 1"
	s.host("ip link add %s mtu %d %s%s up type veth peer name %s mtu %d address %s %s netns $NETNS",
		word(name), p.mtu, queues, master, word(p.ifName), p.mtu, p.mac, queues)
	options := ""
	if bridge != "" {
		options = " addrgenmode none"
	}
	s.host("ip link set %s alias %s%s", word(name), word(hostAlias(p)), options)
	if p.hairpin || p.isolated {
		s.host("ip link set %s type bridge_slave%s", word(name), p.portWords())
	}
	s.host("%s", setting("ipv6", name, "accept_ra", "0"))
}

func (p pair) portWords() (words string) {
	if p.hairpin {
		words += " hairpin on"
	}
	if p.isolated {
		words += " isolated on"
	}
	return words
}
