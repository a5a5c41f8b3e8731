package netsetup

import (
	"fmt"
	"strconv"
)

// finishAnnounced is finish for an interface whose neighbours may know its addresses
// under another MAC address: the kernel tells them when it comes up. An interface
// without addresses has nothing to tell.
func (in *Inside) finishAnnounced(a Attachment) error {
	if len(a.Addresses) > 0 {
		if err := announceMAC(a.IfName); err != nil {
			return fmt.Errorf("%s: %w", a.IfName, err)
		}
	}
	return in.finish(a, 0)
}

// sublinkCommand makes a device that stands on another one; words end the line.
func sublinkCommand(p Plan, a Attachment, words string) Command {
	line := "ip link add link " + shellWord(a.Sublink.Parent) + " name " + shellWord(a.IfName)
	if !a.Sublink.Inside {
		line += " netns $NETNS"
	}
	return Command{Inside: a.Sublink.Inside, Line: line + mtuWords(p.MTU) + " " + words}
}

func mtuWords(mtu int) string {
	if mtu == 0 {
		return ""
	}
	return " mtu " + strconv.Itoa(mtu)
}

// finishCommands are what finish does, for a device that has its name, MTU and MAC.
// arp and nd say whether the neighbours of a family are told of its addresses.
func finishCommands(a Attachment, arp, nd bool) []Command {
	name := shellWord(a.IfName)
	lines := settingLines(a, arp, nd)
	for _, p := range a.Addresses {
		line := "ip addr add " + p.String()
		if p.Addr().Is4() && p.Bits() < 31 {
			line += " brd +"
		}
		line += " dev " + name
		if p.Addr().Is6() && !a.DAD {
			line += " nodad"
		}
		lines = append(lines, line)
	}
	lines = append(lines, "ip link set "+name+" up")
	lines = append(lines, routeLines(a)...)
	var commands []Command
	for _, line := range lines {
		commands = append(commands, Command{Inside: true, Line: line})
	}
	return commands
}

func settingLines(a Attachment, arp, nd bool) (lines []string) {
	set := func(family, key, value string) {
		lines = append(lines, "sysctl -qw "+shellWord("net/"+family+"/conf/"+a.IfName+"/"+key+"="+value))
	}
	moved := len(a.Addresses) > 0 && a.MAC != "" && a.MAC != deriveMAC(a.Addresses).String()
	if len(a.Addresses) > 0 && arp || moved {
		set("ipv4", "arp_notify", "1")
	}
	if len(a.Addresses) > 0 && nd || moved {
		set("ipv6", "ndisc_notify", "1")
	}
	switch {
	case a.NoIPv6:
		set("ipv6", "disable_ipv6", "1")
	case len(a.Addresses) > 0:
		set("ipv6", "keep_addr_on_down", "1")
		set("ipv6", "accept_ra", "0")
		if !a.DAD {
			set("ipv6", "accept_dad", "0")
		}
	}
	return lines
}

func routeLines(a Attachment) (lines []string) {
	add := func(r Route) {
		f := inner(0, r, a)
		line := "ip route add " + f.dst.String()
		switch {
		case f.via.IsValid() && f.via.Is6() && f.dst.Addr().Is4():
			line += " via inet6 " + f.via.String()
		case f.via.IsValid():
			line += " via " + f.via.String()
		}
		line += " dev " + shellWord(a.IfName)
		if f.src.IsValid() {
			line += " src " + f.src.String()
		}
		for _, word := range []struct {
			name  string
			value int
		}{{"table", f.table}, {"metric", f.metric}, {"scope", int(f.scope)}, {"mtu", f.mtu}, {"advmss", f.advMSS}} {
			if word.value != 0 {
				line += " " + word.name + " " + strconv.Itoa(word.value)
			}
		}
		if f.onLink {
			line += " onlink"
		}
		lines = append(lines, line)
	}
	for _, r := range a.Routes {
		if !r.Gateway.IsValid() {
			add(r)
		}
	}
	for _, gw := range a.Gateways {
		add(Route{Dst: defaultRoute(gw), Gateway: gw})
	}
	for _, r := range a.Routes {
		if r.Gateway.IsValid() {
			add(r)
		}
	}
	return lines
}
