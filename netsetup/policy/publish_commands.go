package policy

import (
	"fmt"
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
)

// Commands returns what Attach does, in the words of nft(8) and sysctl(8), but for making the
// table (Tables).
func (pm portmap) Commands(p netsetup.Plan, conf any, a netsetup.Attachment) []netsetup.Command {
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
	var s script
	for _, m := range used.Mappings {
		for _, q := range publishedOf(m).families() {
			s.element("taken_ports", fmt.Sprintf("%s . %s . %d . %d", netip.AddrFrom16(q.host.As16()), protocolName(q.proto), q.first, q.last))
		}
	}
	for _, o := range used.objects(l, a, p.Owner) {
		s.object(o)
	}
	if pm.opt.StateDir != "" && !a.Masquerade && !a.Routed { // else that is done
		_ = s.forwarding(l, pm.opt) // what can't be read, Attach will say
	}
	if l.v4 && !pub.NoSNAT {
		s.add("sysctl -qw net/%s=1", string(routeLocal(l.device)))
	}
	if a.Port != nil && a.Port.Hairpin && !pub.NoSNAT {
		s.add("bridge link set dev %s hairpin on", a.HostIf)
	}
	return s
}

// Preview says in a what Attach would.
func (portmap) Preview(_ netsetup.Plan, conf any, a *netsetup.Attachment) {
	if pub, ok := conf.(*publication); ok {
		a.Ports = pub.Mappings
		if len(pub.Mappings) > 0 && !pub.NoSNAT && reflects(*a) {
			a.Port = hairpinPort(a.Port)
		}
	}
}

// object adds what an object stands for.
func (s *script) object(o netsetup.Object) {
	device := o.IfName
	switch o.Kind {
	case KindPortmap:
		if p, err := parsePublished(o.Name); err == nil {
			s.element(p.command())
		}
	case KindHairpin:
		prefix, err := netip.ParsePrefix(o.Name)
		if err != nil {
			return
		}
		if prefix.Addr().Is6() {
			device = ""
		}
		for _, l := range leapsOf(prefix) {
			set := "hairpin6"
			if l.to.Is4() {
				set = "hairpin4"
			}
			s.element(set, l.from.Masked().String()+" . "+l.to.String())
		}
	case KindResolver: // a device that goes with the container
		device = o.Name
	}
	if device != "" {
		s.element("local", quoteName(device))
	}
}

// command is the map's element as nft writes it.
func (p published) command() (set, element string) {
	key := p.mapKey()
	n := len(p.to.Addr().AsSlice())
	low, _ := netip.AddrFromSlice(key.Key[:n])
	host := low.String()
	if high, _ := netip.AddrFromSlice(key.KeyEnd[:n]); low != high {
		host += "-" + high.String()
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

// Commands returns what Attach does, in the words of nft(8) and bridge(8), but for making the
// table (Tables).
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
	var s script
	name := quoteName(device)
	s.add("nft add chain inet %s %s", tableName, g.chain)
	s.element("admin_chains", name+" : jump "+g.chain)
	s.element("ours", name)
	if g.ingress == "open" {
		return s
	}
	s.element("restricted", name)
	s.element("inside", name+" . "+name)
	if g.ingress == ingressIsolated {
		s.element("isolated", name+" . "+name)
		if a.Bridge != "" {
			s.add("bridge link set dev %s isolated on", a.HostIf)
		}
	}
	return s
}
