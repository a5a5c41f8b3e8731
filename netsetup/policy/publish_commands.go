package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// nft is a line of nft(8), quoted for sh(1).
func nft(format string, args ...any) netsetup.Command {
	return netsetup.Command{Line: "nft '" + fmt.Sprintf(format, args...) + "'"}
}

const inTable = " inet " + tableName + " "

// Commands returns what Attach does, in the words of nft(8) and sysctl(8): the parts of
// nsinit's table that publish ports, and what the host needs beside them. On a host that has
// the table, its rules are there, and the lines with elements are all that is done.
func (portmap) Commands(p netsetup.Plan, conf any, a netsetup.Attachment) []netsetup.Command {
	pub, ok := conf.(*publication)
	if !ok || len(pub.Mappings) == 0 {
		return nil
	}
	l, err := linkOf(a)
	if err != nil {
		return nil
	}
	used := *pub
	if len(a.Ports) > 0 {
		used.Mappings = a.Ports
	}
	list := publishTable()
	for _, o := range used.objects(l, a, p.Owner) {
		list = append(list, elementCommands(o)...)
	}
	if l.v4 {
		list = append(list, sysctlCommand(forwarding4(l.device)))
	}
	if l.v6 {
		list = append(list, netsetup.Command{Line: fmt.Sprintf("sysctl -qw %s=1 || sysctl -qw %s=1", force6(l.device), forwarding6("all"))})
	}
	if l.v4 && !pub.NoSNAT {
		list = append(list, sysctlCommand(routeLocal(l.device)))
	}
	return list
}

func sysctlCommand(s sysctl) netsetup.Command {
	return netsetup.Command{Line: fmt.Sprintf("sysctl -qw %s=1", s)}
}

// publishTable makes the maps, the sets and the rules that look into them.
func publishTable() []netsetup.Command {
	list := []netsetup.Command{
		nft("add table inet %s", tableName),
		nft("add chain%spublish", inTable),
		nft("add chain%sprerouting { type nat hook prerouting priority dstnat; }", inTable),
		nft("add chain%soutput { type nat hook output priority -100; }", inTable),
		nft("add chain%spostrouting { type nat hook postrouting priority srcnat; }", inTable),
		nft("add set%slocal { type ifname; }", inTable),
		nft("add chain%sloopback { type filter hook prerouting priority raw; }", inTable),
		nft("add rule%sloopback iifname @local ip daddr 127.0.0.0/8 counter drop", inTable),
		nft("add rule%sloopback iifname @local ip saddr 127.0.0.0/8 counter drop", inTable),
	}
	for _, f := range []struct{ n, proto, kind string }{{"4", "ip", "ipv4_addr"}, {"6", "ip6", "ipv6_addr"}} {
		key := f.kind + " . inet_proto . inet_service"
		dnat := fmt.Sprintf("meta l4proto { tcp, udp, sctp } dnat %[1]s to %[1]s daddr . meta l4proto . th dport map", f.proto)
		list = append(list,
			nft("add map%sports%s { type %s : %s . inet_service; flags interval; }", inTable, f.n, key, f.kind),
			nft("add map%sranges%s { type %s : %s; flags interval; }", inTable, f.n, key, f.kind),
			nft("add set%shairpin%s { type %[3]s . %[3]s; flags interval; }", inTable, f.n, f.kind),
			nft("add rule%spublish %s @ports%s", inTable, dnat, f.n),
			nft("add rule%spublish %s @ranges%s", inTable, dnat, f.n),
			nft("add rule%spostrouting ct status dnat %[2]s saddr . %[2]s daddr @hairpin%[3]s counter masquerade", inTable, f.proto, f.n))
	}
	for _, chain := range []string{"prerouting", "output"} {
		list = append(list, nft("add rule%s%s fib daddr type local jump publish", inTable, chain))
	}
	return list
}

// elementCommands add what an object stands for.
func elementCommands(o netsetup.Object) []netsetup.Command {
	add := func(set, element string) netsetup.Command { return nft("add element%s%s { %s }", inTable, set, element) }
	switch o.Kind {
	case KindPortmap:
		p, err := parsePublished(o.Name)
		if err != nil {
			return nil
		}
		set, element := p.command()
		return []netsetup.Command{add(set, element)}
	case KindHairpin:
		return append(hairpinCommands(o, add), localCommands(o.IfName, add)...)
	case KindResolver: // a device that goes with the container
		return localCommands(o.Name, add)
	}
	return nil
}

func localCommands(device string, add func(set, element string) netsetup.Command) []netsetup.Command {
	if device == "" {
		return nil
	}
	return []netsetup.Command{add("local", `"`+device+`"`)}
}

func hairpinCommands(o netsetup.Object, add func(set, element string) netsetup.Command) []netsetup.Command {
	prefix, err := netip.ParsePrefix(o.Name)
	if err != nil {
		return nil
	}
	var list []netsetup.Command
	for _, l := range leapsOf(prefix) {
		set := "hairpin6"
		if l.to.Is4() {
			set = "hairpin4"
		}
		list = append(list, add(set, l.from.Masked().String()+" . "+l.to.String()))
	}
	return list
}

// command is the map's element as nft writes it.
func (p published) command() (set, element string) {
	key := p.mapKey()
	n := len(p.to.Addr().AsSlice())
	host := p.host.String()
	low, _ := netip.AddrFromSlice(key.Key[:n])
	if high, _ := netip.AddrFromSlice(key.KeyEnd[:n]); low != high {
		host = low.String() + "-" + high.String()
	}
	family := "6"
	if p.to.Addr().Is4() {
		family = "4"
	}
	element = host + " . " + protocolName(p.proto) + " . " + p.ports() + " : " + p.to.Addr().String()
	if p.first != p.last {
		return "ranges" + family, element
	}
	return "ports" + family, fmt.Sprintf("%s . %d", element, p.to.Port())
}

// Commands returns what Attach does, in the words of nft(8) and bridge(8).
func (firewall) Commands(p netsetup.Plan, conf any, a netsetup.Attachment) []netsetup.Command {
	c, ok := conf.(*netsetup.FirewallConf)
	if !ok {
		return nil
	}
	o, device := guardObject(c, a, p.Owner)
	g, ok := parseGuarded(o.Name)
	if device == "" || !ok {
		return nil
	}
	list := guardTable()
	element := func(set, format string) {
		list = append(list, nft("add element%s%s { %s }", inTable, set, strings.ReplaceAll(format, "DEVICE", `"`+device+`"`)))
	}
	list = append(list, nft("add chain%s%s", inTable, g.chain))
	element("admin_chains", "DEVICE : jump "+g.chain)
	if g.ingress == "open" {
		return list
	}
	element("restricted", "DEVICE")
	element("inside", "DEVICE . DEVICE")
	if g.ingress == ingressIsolated {
		element("isolated", "DEVICE . DEVICE")
		if a.Bridge != "" {
			list = append(list, netsetup.Command{Line: "bridge link set dev " + a.HostIf + " isolated on"})
		}
	}
	return list
}

func guardTable() []netsetup.Command {
	list := []netsetup.Command{
		nft("add table inet %s", tableName),
		nft("add chain%sforward { type filter hook forward priority filter; }", inTable),
		nft("add set%srestricted { type ifname; }", inTable),
		nft("add set%sinside { type ifname . ifname; }", inTable),
		nft("add set%sisolated { type ifname . ifname; }", inTable),
		nft("add map%sadmin_chains { type ifname : verdict; }", inTable),
	}
	for _, rule := range []string{
		"iifname . oifname @isolated counter drop",
		"iifname @restricted oifname @restricted iifname . oifname != @inside counter drop",
		"iifname vmap @admin_chains",
		"oifname vmap @admin_chains",
	} {
		list = append(list, nft("add rule%sforward %s", inTable, rule))
	}
	return list
}
