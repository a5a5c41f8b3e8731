package ipam

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// An addrRange is the part of a subnet that host-local gives addresses from,
// start to end and not the gateway.
type addrRange struct {
	subnet              netip.Prefix
	gateway, start, end netip.Addr
}

// A rangeSet is what one address of a container comes from: the first range
// that has one left. All its ranges are of one family and don't overlap.
//
// Its rules and its order are those of host-local's allocator, which a test
// compares it with; that package itself costs every start five milliseconds of
// regular expressions that its dependencies compile.
type rangeSet []addrRange

// newRange completes sub as host-local does: the gateway is the subnet's first
// address, the range the whole subnet but for IPv4's broadcast address.
func newRange(sub netsetup.Subnet) (addrRange, error) {
	if err := netsetup.CheckSubnet(sub); err != nil {
		return addrRange{}, fmt.Errorf("subnet %s: %w", sub.Prefix, err)
	}
	r := addrRange{subnet: sub.Prefix, gateway: sub.Gateway, start: sub.RangeStart, end: sub.RangeEnd}
	if first := sub.Prefix.Addr().Next(); !r.gateway.IsValid() {
		r.gateway = first
	}
	if !r.start.IsValid() {
		r.start = sub.Prefix.Addr().Next()
	}
	if !r.end.IsValid() {
		r.end = lastOf(sub.Prefix)
	}
	return r, nil
}

// lastOf returns the last address of p that a host can have.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(a); bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(a)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

func (r addrRange) contains(a netip.Addr) bool {
	return r.subnet.Contains(a) && !a.Less(r.start) && !r.end.Less(a)
}

func (r addrRange) overlaps(other addrRange) bool {
	return r.contains(other.start) || r.contains(other.end) || other.contains(r.start) || other.contains(r.end)
}

func (r addrRange) String() string { return r.start.String() + "-" + r.end.String() }

// rangeSets makes the sets of a network's pools.
func rangeSets(subnets []netsetup.Subnet) ([]rangeSet, error) {
	if len(subnets) == 0 {
		return nil, fmt.Errorf("no pool; give ipam a subnet, as 10.1.0.0/24")
	}
	var sets []rangeSet
	var all []addrRange
	for _, sub := range subnets {
		r, err := newRange(sub)
		if err != nil {
			return nil, err
		}
		for _, other := range all {
			if r.overlaps(other) {
				return nil, fmt.Errorf("pools %s and %s overlap; separate them", other.subnet, r.subnet)
			}
		}
		all = append(all, r)
		switch last := len(sets) - 1; {
		case last < 0 || !sub.Alternative:
			sets = append(sets, rangeSet{r})
		case sets[last][0].subnet.Addr().Is4() != r.subnet.Addr().Is4():
			return nil, fmt.Errorf("pool %s or %s: mixed address families; give each its own set", sets[last], r.subnet)
		default:
			sets[last] = append(sets[last], r)
		}
	}
	return sets, nil
}

// String names the subnets of the set.
func (set rangeSet) String() string {
	all := make([]string, len(set))
	for i, r := range set {
		all[i] = r.subnet.String()
	}
	return strings.Join(all, " or ")
}

// rangeOf returns the range that a lies in.
func (set rangeSet) rangeOf(a netip.Addr) (addrRange, bool) {
	for _, r := range set {
		if r.contains(a) {
			return r, true
		}
	}
	return addrRange{}, false
}

// candidates returns the addresses of the set in the order of trying: from
// behind last, the one that was given last, round to it again; from the start if
// last isn't of the set. So an address that was just given back is the last to be
// given again.
func (set rangeSet) candidates(last netip.Addr, try func(netip.Addr, addrRange) (more bool)) {
	i, at := 0, set[0].start
	for j, r := range set {
		if r.contains(last) {
			i, at = set.behind(j, last)
			break
		}
	}
	for first, begun := at, false; !begun || at != first; i, at = set.behind(i, at) {
		begun = true
		if at != set[i].gateway && !try(at, set[i]) {
			return
		}
	}
}

// behind returns what follows a, which is of range i, and its range.
func (set rangeSet) behind(i int, a netip.Addr) (int, netip.Addr) {
	if a != set[i].end {
		return i, a.Next()
	}
	i = (i + 1) % len(set)
	return i, set[i].start
}
