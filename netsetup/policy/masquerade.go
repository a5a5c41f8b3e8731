package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/nsinit/nsinit/netsetup"
)

// Masquerade lets the addresses of a out with the host's address, and sees to it
// that the host forwards them. What of it ends with the container is handed to
// record before it is made; Undo takes it back. What the host itself is changed by
// goes into opt.StateDir, once, with one line to h.Warn.
//
// a must have a device on the host: Bridge, or HostIf for a point-to-point link.
// Errors of the kernel are wrapped.
func Masquerade(ctx context.Context, h *netsetup.Host, a netsetup.Attachment, owner string, opt Options, record netsetup.Recorder) error {
	l, err := linkOf(a)
	if err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	objects := l.masquerade(a, owner)
	for _, o := range objects {
		if err := record(o); err != nil {
			return fmt.Errorf("masquerade: %s: record: %w", o.Name, err)
		}
	}
	e := elementsFor(objects...)
	if len(a.Subnets) > 0 {
		there, err := holds(e)
		if err != nil {
			return fmt.Errorf("masquerade: nftables: %w", explain(err))
		}
		if there {
			return l.forward(ctx, h, false, opt)
		}
		if err := dropOverlapped(ctx, e, opt); err != nil {
			return fmt.Errorf("masquerade: %w", err)
		}
	}
	return l.admit(ctx, h, "masquerade", e, opt)
}

// dropOverlapped takes subnets out of the table that overlap those of e: somebody has changed the network's file. The
// records keep them.
func dropOverlapped(ctx context.Context, e elements, opt Options) error {
	old, err := recorded(opt)
	if err != nil {
		return err
	}
	return Undo(ctx, slices.DeleteFunc(slices.Clone(old), func(o netsetup.Object) bool {
		was := elementsFor(o)
		stays := func(mine, was []nftables.SetElement) bool {
			return !slices.ContainsFunc(was, func(w nftables.SetElement) bool {
				return slices.ContainsFunc(mine, func(m nftables.SetElement) bool { return overlap(m, w) && !sameKey(m, w) })
			})
		}
		return stays(e.networks4, was.networks4) && stays(e.networks6, was.networks6)
	})...)
}

// masquerade are the objects of a's subnets, which are the network's own, or else of
// its addresses.
func (l hostLink) masquerade(a netsetup.Attachment, owner string) (all []netsetup.Object) {
	for _, s := range a.Subnets {
		all = append(all, netsetup.Object{Kind: KindMasquerade, Network: l.network, Name: s.String(), IfName: l.device})
	}
	if all == nil {
		all = l.objects(KindMasquerade, addressNames(a), owner)
	}
	return all
}

// A hostLink is the host's side of an attachment.
type hostLink struct {
	network string
	device  string
	lasting bool // the device outlives the container: a bridge
	v4, v6  bool
}

func linkOf(a netsetup.Attachment) (hostLink, error) {
	l := hostLink{network: a.Network, device: a.HostIf}
	if a.Bridge != "" {
		l.device, l.lasting = a.Bridge, true
	}
	if a.Port != nil && a.Port.GatewayIf != "" {
		l.device = a.Port.GatewayIf // by which it comes from its VLAN
	}
	if l.device == "" {
		return l, fmt.Errorf("network %s: strategy %s has no device on the host", a.Network, a.Strategy)
	}
	for _, p := range a.Addresses {
		l.v4 = l.v4 || p.Addr().Unmap().Is4()
		l.v6 = l.v6 || !p.Addr().Unmap().Is4()
	}
	if !l.v4 && !l.v6 {
		return l, errors.New("network " + a.Network + ": the container has no address")
	}
	return l, nil
}

// objects are what has to be recorded for names: one each, and the device if it
// goes with the container.
func (l hostLink) objects(kind string, names []string, owner string) []netsetup.Object {
	device := l.device
	var all []netsetup.Object
	if !l.lasting {
		all = append(all, netsetup.Object{Kind: kind, Network: l.network, Name: l.device, Owner: owner})
		device = ""
	}
	for _, name := range names {
		all = append(all, netsetup.Object{Kind: kind, Network: l.network, Name: name, Owner: owner, IfName: device})
	}
	return all
}

func addressNames(a netsetup.Attachment) []string {
	var names []string
	for _, p := range a.Addresses {
		names = append(names, p.Addr().Unmap().String())
	}
	return names
}

// addElements adds to the table, and makes it when it is not there: on first use,
// and after someone flushed the host's ruleset. made tells the latter two.
func addElements(ctx context.Context, network string, e elements, opt Options) (made bool, err error) {
	t := newTable()
	add := func() error {
		return changeElements(ctx, "network "+network+": add to table inet "+tableName, e.changes(t)...)
	}
	if err := add(); !gone(err) {
		return false, err
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return false, err
	}
	defer lock.release()
	if err := add(); !gone(err) { // by another start, meanwhile
		return false, err
	}
	ledger, err := readLedger(opt.StateDir)
	if err != nil {
		return false, err
	}
	objects, err := recorded(opt)
	if err != nil {
		return false, fmt.Errorf("table inet %s: %w", tableName, err)
	}
	e.takeAll(objects)
	if err := e.leadOnce(t); err != nil {
		return true, err
	}
	if err := makeTable(ctx, t, ledger, e); err != nil {
		return true, err
	}
	if err := restoreSpoof(ctx, objects); err != nil {
		return true, err
	}
	return true, dropEnded(ctx, objects, opt)
}

// makeTable makes the table what the ledger says, with e in it. The caller holds
// the lock.
func makeTable(ctx context.Context, t table, l *ledger, e elements) error {
	return modules(commit(ctx, "make table inet "+tableName, func(tx *transaction) {
		tx.makeTable(t, l.allIPv6())
		for _, name := range e.adminChains() {
			tx.conn.AddChain(&nftables.Chain{Name: name, Table: t.Table})
		}
		tx.add(l.elements(), t)
		tx.add(e, t)
	}))
}

// masqueraded is the element of an address, of a subnet, or of a device that is gone.
func (t table) masqueraded(o netsetup.Object) []elementChange {
	if subnet, err := netip.ParsePrefix(o.Name); err == nil {
		set := t.networks6
		if subnet.Addr().Is4() {
			set = t.networks4
		}
		return []elementChange{remove(set, subnetElement(subnet, o.IfName))}
	}
	addr, err := netip.ParseAddr(o.Name)
	switch {
	case err != nil:
		return []elementChange{remove(t.devices, nameElement(o.Name))}
	case addr.Is4():
		return []elementChange{remove(t.containers4, addrElement(addr))}
	}
	return []elementChange{remove(t.containers6, addrElement(addr))}
}
