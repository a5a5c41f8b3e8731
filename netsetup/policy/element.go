package policy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// elements are what a transaction adds to the table's sets.
type elements struct {
	containers4, containers6, networks4, networks6, devices, opened4, opened6, samePort, local, relayed, routed []nftables.SetElement

	restricted, inside, isolated, admin []nftables.SetElement

	taken, ports4, ports6, ranges4, ranges6, hairpin4, hairpin6 []nftables.SetElement
}

// changes are the additions, set by set.
func (e elements) changes(t table) []elementChange {
	all := []elementChange{
		{set: t.containers4, elements: e.containers4},
		{set: t.containers6, elements: e.containers6},
		{set: t.networks4, elements: e.networks4},
		{set: t.networks6, elements: e.networks6},
		{set: t.devices, elements: e.devices},
		{set: t.opened4, elements: e.opened4},
		{set: t.opened6, elements: e.opened6},
		{set: t.samePort, elements: e.samePort},
		{set: t.local, elements: e.local},
		{set: t.relayed, elements: e.relayed},
		{set: t.routed, elements: e.routed},
		{set: t.guard.restricted, elements: e.restricted},
		{set: t.guard.inside, elements: e.inside},
		{set: t.guard.isolated, elements: e.isolated},
		{set: t.guard.admin, elements: e.admin},
		{set: t.publish.taken, elements: e.taken},
		{set: t.publish.ports4, elements: e.ports4},
		{set: t.publish.ports6, elements: e.ports6},
		{set: t.publish.ranges4, elements: e.ranges4},
		{set: t.publish.ranges6, elements: e.ranges6},
		{set: t.publish.hairpin4, elements: e.hairpin4},
		{set: t.publish.hairpin6, elements: e.hairpin6},
	}
	return slices.DeleteFunc(all, func(c elementChange) bool { return len(c.elements) == 0 })
}

// elementsFor are what objects stand for, in their order.
func elementsFor(objects ...netsetup.Object) (e elements) {
	for _, o := range objects {
		e.take(o)
	}
	return e
}

// takeAll takes objects in their order, but of subnets that overlap the newest.
func (e *elements) takeAll(objects []netsetup.Object) {
	for _, o := range slices.Backward(objects) {
		if _, err := netip.ParsePrefix(o.Name); err == nil && o.Kind == KindMasquerade {
			e.take(o)
		}
	}
	for _, o := range objects {
		e.take(o)
	}
}

// take adds what an object stands for. Objects of other kinds are passed over, and
// so is one that can't be read: it is of another version, and whoever undoes it
// will say so.
func (e *elements) take(o netsetup.Object) {
	switch o.Kind {
	case KindMasquerade:
		e.takeMasquerade(o)
	case KindResolver:
		e.takeResolver(o)
	case KindForward:
		e.takeForward(o)
	case KindFirewall:
		e.takeFirewall(o)
	case KindPort, KindPortmap:
		e.takePort(o)
	case KindHairpin:
		e.takeHairpin(o)
	}
}

func (e *elements) takeMasquerade(o netsetup.Object) {
	if subnet, err := netip.ParsePrefix(o.Name); err == nil {
		e.takeSubnet(subnet, o.IfName)
		return
	}
	addr, err := netip.ParseAddr(o.Name)
	switch {
	case err != nil:
		e.devices = append(e.devices, nameElement(o.Name))
		return
	case addr.Is4():
		e.containers4 = append(e.containers4, addrElement(addr))
	default:
		e.containers6 = append(e.containers6, addrElement(addr))
	}
	if o.IfName != "" {
		e.devices = addName(e.devices, o.IfName)
	}
}

// takeSubnet leaves out one that overlaps one that was taken before: their set could not hold both.
func (e *elements) takeSubnet(subnet netip.Prefix, device string) {
	list := &e.networks6
	if subnet.Addr().Is4() {
		list = &e.networks4
	}
	element := subnetElement(subnet, device)
	if !slices.ContainsFunc(*list, func(other nftables.SetElement) bool { return overlap(element, other) }) {
		*list = append(*list, element)
	}
	e.devices = addName(e.devices, device)
}

// sameKey tells whether two elements are one.
func sameKey(a, b nftables.SetElement) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.KeyEnd, b.KeyEnd)
}

// overlap tells whether two subnets of one device share addresses.
func overlap(a, b nftables.SetElement) bool {
	n := len(a.Key) - unix.IFNAMSIZ
	return bytes.Equal(a.Key[n:], b.Key[n:]) && bytes.Compare(a.Key[:n], b.KeyEnd[:n]) <= 0 && bytes.Compare(b.Key[:n], a.KeyEnd[:n]) <= 0
}

// addName adds a name that is not there yet: many containers have one device.
func addName(list []nftables.SetElement, name string) []nftables.SetElement {
	key := nameKey(name)
	if slices.ContainsFunc(list, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, key) }) {
		return list
	}
	return append(list, nftables.SetElement{Key: key})
}

func (e *elements) takeResolver(o netsetup.Object) {
	q, err := parseQuery(o.Name)
	if err != nil {
		e.local = append(e.local, nameElement(o.Name))
		return
	}
	e.relayed = append(e.relayed, q.element())
	if o.IfName != "" {
		e.local = addName(e.local, o.IfName)
	}
}

// takePort adds what leads to a container, or only that the port is taken.
func (e *elements) takePort(o netsetup.Object) {
	p, err := parsePublished(o.Name)
	switch {
	case err != nil:
	case o.Kind == KindPort:
		e.taken = append(e.taken, p.takenElements()...)
	case p.to.IsValid():
		list, value := e.mapOf(p)
		element := p.mapKey()
		element.Val = value
		*list = append(*list, element)
	}
}

// mapOf says in which map p is, and with which value.
func (e *elements) mapOf(p published) (list *[]nftables.SetElement, value []byte) {
	value = p.to.Addr().AsSlice()
	switch is4 := p.to.Addr().Is4(); {
	case p.first == p.last:
		value = appendPort(value, p.to.Port())
		if is4 {
			return &e.ports4, value
		}
		return &e.ports6, value
	case is4:
		return &e.ranges4, value
	}
	return &e.ranges6, value
}

func (e *elements) takeHairpin(o netsetup.Object) {
	p, err := netip.ParsePrefix(o.Name)
	if err != nil {
		return
	}
	for _, l := range leapsOf(p) {
		if l.to.Is4() {
			e.hairpin4 = append(e.hairpin4, l.element())
		} else {
			e.hairpin6 = append(e.hairpin6, l.element())
		}
	}
	if o.IfName != "" && p.Addr().Is4() {
		e.local = addName(e.local, o.IfName)
	}
}

func addrElement(a netip.Addr) nftables.SetElement { return nftables.SetElement{Key: a.AsSlice()} }

// subnetElement is what comes from subnet by device.
func subnetElement(subnet netip.Prefix, device string) nftables.SetElement {
	low, high := boundsOf(subnet)
	return nftables.SetElement{Key: append(low, nameKey(device)...), KeyEnd: append(high, nameKey(device)...)}
}

// boundsOf are a prefix's first and last address.
func boundsOf(p netip.Prefix) (low, high []byte) {
	low, high = p.Masked().Addr().AsSlice(), p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(high)*8; i++ {
		high[i/8] |= 0x80 >> (i % 8)
	}
	return low, high
}

// nameElement is a device's name, which the kernel compares with all 16 bytes.
func nameElement(name string) nftables.SetElement {
	return nftables.SetElement{Key: nameKey(name)}
}

func pairElement(name string) nftables.SetElement {
	return nftables.SetElement{Key: append(nameKey(name), nameKey(name)...)}
}

func nameKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key[:unix.IFNAMSIZ-1], name)
	return key
}

// A query is one container's way to a resolver: what goes from container to port 53
// of gateway arrives at resolver.
type query struct {
	container, gateway netip.Addr
	resolver           netip.AddrPort
}

func (q query) String() string {
	return fmt.Sprintf("%s@%s>%s", q.container, q.gateway, q.resolver)
}

// parseQuery reads what String wrote.
func parseQuery(s string) (query, error) {
	container, rest, ok1 := strings.Cut(s, "@")
	gateway, resolver, ok2 := strings.Cut(rest, ">")
	if !ok1 || !ok2 {
		return query{}, fmt.Errorf("%q is not of the form ADDRESS@GATEWAY>RESOLVER:PORT", s)
	}
	var q query
	var err error
	if q.container, err = netip.ParseAddr(container); err != nil {
		return query{}, err
	}
	if q.gateway, err = netip.ParseAddr(gateway); err != nil {
		return query{}, err
	}
	if q.resolver, err = netip.ParseAddrPort(resolver); err != nil {
		return query{}, err
	}
	if !q.container.Is4() || !q.gateway.Is4() || !q.resolver.Addr().Is4() {
		return query{}, fmt.Errorf("%q is not of IPv4 only", s)
	}
	return q, nil
}

func (q query) key() nftables.SetElement {
	return nftables.SetElement{Key: append(q.container.AsSlice(), q.gateway.AsSlice()...)}
}

func (q query) element() nftables.SetElement {
	e := q.key()
	e.Val = binary.BigEndian.AppendUint16(q.resolver.Addr().AsSlice(), q.resolver.Port())
	e.Val = append(e.Val, 0, 0) // a part of a key or value fills words of 4 bytes
	return e
}
