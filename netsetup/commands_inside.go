package netsetup

import (
	"fmt"
	"strconv"
)

// finishAnnounced is finish for an interface whose neighbours may know its addresses
// under another MAC address: the kernel tells them when it comes up. An interface
// without addresses has nothing to tell.
func (in *Inside) finishAnnounced(a Attachment) error {
	if a.quiet() {
		if err := in.c.announceMAC(a.IfName); err != nil {
			return fmt.Errorf("%s: %w", a.IfName, err)
		}
	}
	return in.finish(a, 0)
}

// quiet says whether a has addresses that finish alone doesn't tell the neighbours of.
func (a *Attachment) quiet() bool {
	return len(a.Addresses) > 0 && (a.MAC == "" || a.MAC == deriveMAC(a.Addresses).String())
}

// addressWords is a MAC address for ip-link(8), "" for the kernel's choice.
func addressWords(mac string) string {
	if mac == "" {
		return ""
	}
	return "address " + mac + " "
}

// sublinkCommand makes a device that stands on another one; words end the line.
func sublinkCommand(p Plan, a Attachment, words string) Command {
	line := "ip link add link " + word(a.Sublink.Parent) + " name " + word(a.IfName)
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

// announcedCommands are finishCommands for an interface whose neighbours are told of
// its addresses, those of IPv4 if arp and those of IPv6 if nd.
func announcedCommands(a Attachment, arp, nd bool) []Command {
	var s script
	if a.quiet() && arp {
		s.inside("%s", setting("ipv4", a.IfName, "arp_notify", "1"))
	}
	if a.quiet() && nd {
		s.inside("%s", setting("ipv6", a.IfName, "ndisc_notify", "1"))
	}
	return append(s, finishCommands(a, false)...)
}
