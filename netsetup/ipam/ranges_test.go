package ipam

import (
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/nsinit/nsinit/netsetup"
)

// A lastOnly is a store of which only the last address counts.
type lastOnly struct {
	backend.Store
	last netip.Addr
}

func (s lastOnly) LastReservedIP(string) (net.IP, error) {
	if !s.last.IsValid() {
		return nil, fs.ErrNotExist
	}
	return s.last.AsSlice(), nil
}

// reference makes host-local's own range sets of subnets.
func reference(subnets []netsetup.Subnet) ([]allocator.RangeSet, error) {
	toIP := func(a netip.Addr) net.IP {
		if !a.IsValid() {
			return nil
		}
		return a.AsSlice()
	}
	var sets []allocator.RangeSet
	for _, sub := range subnets {
		r := allocator.Range{
			Subnet:  types.IPNet{IP: sub.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(sub.Prefix.Bits(), sub.Prefix.Addr().BitLen())},
			Gateway: toIP(sub.Gateway), RangeStart: toIP(sub.RangeStart), RangeEnd: toIP(sub.RangeEnd),
		}
		if sub.Alternative && len(sets) > 0 {
			sets[len(sets)-1] = append(sets[len(sets)-1], r)
		} else {
			sets = append(sets, allocator.RangeSet{r})
		}
	}
	for i := range sets {
		if err := sets[i].Canonicalize(); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// randomSubnets makes pools of few addresses, that may overlap and mix families.
func randomSubnets(r *rand.Rand) []netsetup.Subnet {
	subnets := make([]netsetup.Subnet, 1+r.IntN(4))
	for i := range subnets {
		base := netip.AddrFrom4([4]byte{10, 1, 0, byte(r.IntN(256))})
		if r.IntN(3) == 0 {
			base = netip.AddrFrom16([16]byte{0xfd, 15: byte(r.IntN(256))})
		}
		p, _ := base.Prefix(base.BitLen() - 2 - r.IntN(3))
		hosts := 1<<(p.Addr().BitLen()-p.Bits()) - 1 // the last of IPv4's is the broadcast address
		if p.Addr().Is4() {
			hosts--
		}
		host := func() (a netip.Addr) {
			if r.IntN(2) == 0 {
				return a
			}
			a = p.Addr()
			for range 1 + r.IntN(hosts) {
				a = a.Next()
			}
			return a
		}
		subnets[i] = netsetup.Subnet{Prefix: p, Gateway: host(), RangeStart: host(), RangeEnd: host(), Alternative: i > 0 && r.IntN(2) == 0}
	}
	return subnets
}

// TestCandidates compares the sets and the order of trying with host-local's own.
func TestCandidates(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	compared := 0
	for range 20000 {
		subnets := randomSubnets(r)
		sets, err := rangeSets(subnets)
		if err != nil {
			continue // stricter than host-local, which takes a range that ends before it starts
		}
		theirs, err := reference(subnets)
		if err != nil {
			t.Fatalf("%+v: host-local refuses them: %v", subnets, err)
		}
		for i, set := range sets {
			last := set[r.IntN(len(set))].subnet.Addr()
			for range r.IntN(16) {
				last = last.Next()
			}
			if r.IntN(4) == 0 {
				last = netip.Addr{}
			}
			var got, want []netip.Prefix
			var gots, wants []netip.Addr
			set.candidates(last, func(a netip.Addr, in addrRange) bool {
				got, gots = append(got, netip.PrefixFrom(a, in.subnet.Bits())), append(gots, in.gateway)
				return true
			})
			walk, err := allocator.NewIPAllocator(&theirs[i], lastOnly{last: last}, 0).GetIter()
			if err != nil {
				t.Fatal(err)
			}
			for a, gw := walk.Next(); a != nil; a, gw = walk.Next() {
				ip, _ := netip.AddrFromSlice(a.IP)
				gateway, _ := netip.AddrFromSlice(gw)
				bits, _ := a.Mask.Size()
				want, wants = append(want, netip.PrefixFrom(ip.Unmap(), bits)), append(wants, gateway.Unmap())
			}
			if !slices.Equal(got, want) || !slices.Equal(gots, wants) {
				t.Fatalf("%+v, last %s:\ngot  %v by %v\nwant %v by %v", subnets, last, got, gots, want, wants)
			}
			for a := subnets[0].Prefix.Addr(); subnets[0].Prefix.Contains(a); a = a.Next() {
				if _, ok := set.rangeOf(a); ok != theirs[i].Contains(a.AsSlice()) {
					t.Fatalf("%+v: %s of the set is %v, and host-local says otherwise", subnets, a, ok)
				}
			}
			compared++
		}
	}
	if compared < 5000 {
		t.Errorf("only %d sets compared", compared)
	}
}
