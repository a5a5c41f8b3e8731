package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// portmap publishes ports of a container on the host, in nsinit's own table: what is
// addressed to the host's ports is turned to the container, whether it comes from outside, from
// the host itself, from a neighbour or from the container. Its configuration is that of the CNI
// plugin of the same name.
type portmap struct{ opt Options }

// Portmap is CNI's portmap.
func Portmap(opt Options) netsetup.Policy { return portmap{opt} }

// A publication is the plan of a portmap.
type publication struct {
	netsetup.PortmapConf
	reserved bool
}

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (portmap) Plan(p netsetup.Plan, plugin netsetup.Plugin) (any, error) {
	conf, err := netsetup.ReadPortmap(p, plugin)
	return &publication{PortmapConf: conf}, err
}

// Reserve takes the host ports of p for its owner, so that a busy one is found before anything
// of the network is made.
func Reserve(ctx context.Context, p netsetup.Plan, opt Options, record netsetup.Recorder) error {
	for _, planned := range p.Policies {
		if pub, ok := planned.Conf.(*publication); ok && !pub.reserved {
			if err := ReservePorts(ctx, p.Owner, p.Network.Name, pub.Mappings, opt, record); err != nil {
				return err
			}
			pub.reserved = true
		}
	}
	return nil
}

// Attach publishes the ports for the first address of each family.
func (pm portmap) Attach(ctx context.Context, h *netsetup.Host, _ *netsetup.NetNS, p netsetup.Plan, conf any, a *netsetup.Attachment, record netsetup.Recorder) error {
	pub, ok := conf.(*publication)
	if !ok || len(pub.Mappings) == 0 {
		return nil
	}
	l, err := linkOf(*a)
	if err != nil {
		return err
	}
	if err := Reserve(ctx, p, pm.opt, record); err != nil {
		return err
	}
	objects := pub.objects(l, *a, p.Owner)
	var e elements
	for _, o := range objects {
		if err := record(o); err != nil {
			return fmt.Errorf("%s: record: %w", o.Name, err)
		}
		e.take(o)
	}
	if err := pm.publish(ctx, h, l, objects, e, !pub.NoSNAT); err != nil {
		return err
	}
	a.Ports = slices.Clone(pub.Mappings)
	if !pub.NoSNAT {
		if err := reflect(a); err != nil {
			return err
		}
	}
	return forgetFlows(pub.Mappings)
}

// reflect lets a bridge send back by a's port what came by it, where packets of bridges are
// shown to the firewall: there a destination is translated within the bridge, and what a
// container sends to its own published port has to leave by the port that it came by.
func reflect(a *netsetup.Attachment) error {
	if !reflects(*a) {
		return nil
	}
	rt, err := openRoutes()
	if err != nil {
		return err
	}
	defer rt.Close()
	link, err := rt.LinkByName(a.HostIf)
	if err == nil {
		err = rt.LinkSetHairpin(link, true)
	}
	if err != nil {
		return fmt.Errorf("%s: hairpin: %w", a.HostIf, err)
	}
	a.Port = hairpinPort(a.Port)
	return nil
}

func reflects(a netsetup.Attachment) bool {
	calls := sysctl("bridge/bridge-nf-call-iptables").is("1") || sysctl("bridge/bridge-nf-call-ip6tables").is("1")
	return a.Bridge != "" && a.HostIf != "" && calls
}

// hairpinPort is what port says, with hairpin mode.
func hairpinPort(port *netsetup.BridgePort) *netsetup.BridgePort {
	with := netsetup.BridgePort{}
	if port != nil {
		with = *port
	}
	with.Hairpin = true
	return &with
}

// publish makes the rules, and what the host needs for packets to take that way.
func (pm portmap) publish(ctx context.Context, h *netsetup.Host, l hostLink, objects []netsetup.Object, e elements, loopback bool) error {
	made, err := addElements(ctx, l.network, e, pm.opt)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) { // the ports led to another address of this container
		if err := Undo(ctx, objects...); err != nil {
			return err
		}
		made, err = addElements(ctx, l.network, e, pm.opt)
	}
	if err != nil {
		return err
	}
	opened, err := openForwarding(ctx, h, l, pm.opt)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	if loopback && l.v4 {
		if _, err := openLoopback(ctx, h, l, pm.opt, "ports are published on 127.0.0.1 too", "; `nsinit gc --all` undoes it"); err != nil {
			return err
		}
	}
	if made || opened {
		warnForeign(ctx, h, l.device)
	}
	return nil
}

// objects are all that publishing leaves in the table for the container of a.
func (pub *publication) objects(l hostLink, a netsetup.Attachment, owner string) []netsetup.Object {
	var all []netsetup.Object
	for _, addr := range firstAddresses(a) {
		for _, m := range pub.Mappings {
			p := publishedOf(m)
			if p.host.IsValid() && p.host.Is4() != addr.Addr().Is4() {
				continue
			}
			p.to = netip.AddrPortFrom(addr.Addr(), uint16(m.ContainerPort))
			for _, part := range p.parts() {
				all = append(all, netsetup.Object{Kind: KindPortmap, Network: l.network, Name: part.String(), Owner: owner})
			}
		}
		if pub.NoSNAT {
			continue
		}
		if pub.MasqAll {
			addr = netip.PrefixFrom(addr.Addr(), 0)
		}
		o := netsetup.Object{Kind: KindHairpin, Network: l.network, Name: addr.String(), Owner: owner}
		if l.lasting {
			o.IfName = l.device
		}
		all = append(all, o)
	}
	if !pub.NoSNAT && !l.lasting && l.v4 {
		all = append(all, netsetup.Object{Kind: KindResolver, Network: l.network, Name: l.device, Owner: owner})
	}
	return all
}

// parts are what one element each can say: the whole range, or, if the numbers change on the
// way, each port, as nftables can't add.
func (p published) parts() []published {
	if p.first == p.last || p.kept() {
		return []published{p}
	}
	var list []published
	for i := range p.last - p.first + 1 {
		part := p
		part.first, part.last = p.first+i, p.first+i
		part.to = netip.AddrPortFrom(p.to.Addr(), p.to.Port()+i)
		list = append(list, part)
	}
	return list
}

// firstAddresses are the first address of each family, with its prefix length.
func firstAddresses(a netsetup.Attachment) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range a.Addresses {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
		if !slices.ContainsFunc(list, func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }) {
			list = append(list, p)
		}
	}
	return list
}

// forgetFlows ends what connection tracking knows of UDP to the ports: as long as datagrams
// keep coming, they would go on to where they went before.
func forgetFlows(mappings []netsetup.PortMapping) error {
	f := flowFilter{}
	for _, m := range mappings {
		if m.Protocol == "udp" {
			f = append(f, publishedOf(m))
		}
	}
	if len(f) == 0 {
		return nil
	}
	nl, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("netlink: open: %w", err)
	}
	defer nl.Close()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		// An interrupted dump still deletes what it saw; a flow that ended meanwhile is gone.
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget old UDP flows: %w", err)
		}
	}
	return nil
}

// A flowFilter chooses flows to published ports.
type flowFilter []published

// MatchConntrackFlow tells whether the flow was to one of the ports.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to := flow.Forward
	return slices.ContainsFunc(f, func(p published) bool {
		dst, _ := netip.AddrFromSlice(to.DstIP)
		return to.Protocol == p.proto && p.first <= to.DstPort && to.DstPort <= p.last &&
			(!p.host.IsValid() || p.host.IsUnspecified() || p.host == dst.Unmap())
	})
}

// published are an object's elements. The device stays as long as it lives.
func (t table) published(o netsetup.Object) (list []elementChange) {
	o.IfName = ""
	for _, c := range elementsFor(o).changes(t) {
		for _, el := range c.elements {
			list = append(list, remove(c.set, nftables.SetElement{Key: el.Key, KeyEnd: el.KeyEnd}))
		}
	}
	return list
}

// Check returns what is missing of the published ports in the table.
func (portmap) Check(_ context.Context, _ *netsetup.Host, _ *netsetup.NetNS, p netsetup.Plan, conf any, a netsetup.Attachment) ([]netsetup.Difference, error) {
	pub, ok := conf.(*publication)
	if !ok || len(a.Ports) == 0 {
		return nil, nil
	}
	l, err := linkOf(a)
	if err != nil {
		return nil, err
	}
	ports := *pub
	ports.Mappings = a.Ports // where the host's were chosen
	return checkObjects(ports.objects(l, a, p.Owner))
}

// checkObjects returns what of objects the table doesn't have.
func checkObjects(objects []netsetup.Object) ([]netsetup.Difference, error) {
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", explain(err))
	}
	var diffs []netsetup.Difference
	has := make(map[string]map[string]bool)
	for _, o := range objects {
		for _, c := range elementsFor(o).changes(newTable()) {
			if has[c.set.Name] == nil {
				if has[c.set.Name], err = keysOf(conn, c.set); err != nil {
					return nil, err
				}
			}
			for _, el := range c.elements {
				if !has[c.set.Name][string(el.Key)+string(el.KeyEnd)] {
					diffs = append(diffs, netsetup.Difference{Object: "table inet " + tableName, Want: o.Name, Got: "none"})
				}
			}
		}
	}
	return slices.Compact(diffs), nil
}

func keysOf(conn *nftables.Conn, set *nftables.Set) (map[string]bool, error) {
	elements, _, err := elementsOf(conn, set)
	keys := make(map[string]bool, len(elements))
	for _, el := range elements {
		keys[string(el.Key)+string(el.KeyEnd)] = true
	}
	return keys, err
}

// elementsOf dumps a set, and tells whether there is one.
func elementsOf(conn *nftables.Conn, set *nftables.Set) ([]nftables.SetElement, bool, error) {
	// The error of the dump doesn't say by number that there is none.
	if _, err := conn.GetSetByName(set.Table, set.Name); gone(err) || unsupported(err) {
		return nil, false, nil
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil, true, fmt.Errorf("nftables: read set %s: %w", set.Name, explain(err))
	}
	return elements, true, nil
}
