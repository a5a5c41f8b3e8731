package ipam

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/nsinit/nsinit/netsetup"
)

// Allocate reserves the addresses of p for the interface p.IfName of container
// id, one a range set or those that p asks for, each recorded as a "lease" before
// it is taken. It returns them with the default gateways, at most one a family:
// those that p asks for, else those of the pools. With an error nothing is taken;
// errors don't name the network, which the caller does.
//
// id has just been claimed: it holds no lease yet.
func Allocate(ctx context.Context, p netsetup.Plan, id string, record netsetup.Recorder) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	if p.IPAM == "" {
		if len(p.IPs) > 0 {
			return nil, nil, fmt.Errorf("%s: address %s: the network gives no addresses; set its ipam to static or host-local", p.Source, p.IPs[0])
		}
		return nil, nil, nil
	}
	if p.Network == nil {
		return nil, nil, fmt.Errorf("%s: addresses: no network", p.Source)
	}
	o := netsetup.Object{Kind: "lease", Network: p.Network.Name, Owner: id, Dir: p.DataDir, IfName: p.IfName}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	s, err := openStore(ctx, o, record)
	if err == nil {
		addrs, gateways, err = s.allocate(p)
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		return nil, nil, err
	}
	return addrs, gateways, nil
}

// allocate takes the addresses of p and gives back what it took if one can't be had.
func (s *store) allocate(p netsetup.Plan) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	switch p.IPAM {
	case "host-local":
		addrs, gateways, err = s.fromPools(p)
	case "static":
		addrs, gateways, err = s.asWritten(p)
	default:
		err = fmt.Errorf("ipam type %q: unknown; host-local and static are known", p.IPAM)
	}
	if err == nil {
		return addrs, gateways, nil
	}
	for _, a := range addrs {
		err = errors.Join(err, s.release(a.Addr().String()))
	}
	return nil, nil, err
}

// asWritten takes the addresses that p gives with their prefix lengths. They
// are leases as well, so that nobody else gets them in this network.
func (s *store) asWritten(p netsetup.Plan) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	for _, want := range p.IPs {
		if want.Bits() < 0 {
			return addrs, nil, fmt.Errorf("address %s: no prefix length, and no pool that has one; write %s/24 or the like", want.Addr(), want.Addr())
		}
		ok, err := s.Reserve(s.object.Owner, s.object.IfName, want.Addr().AsSlice(), noRange)
		if err != nil {
			return addrs, nil, err
		}
		if !ok {
			return addrs, nil, s.taken(want.Addr(), nil)
		}
		addrs = append(addrs, want)
	}
	return addrs, p.Gateways, nil
}

// fromPools takes one address of each range set, the one asked for if there is one.
func (s *store) fromPools(p netsetup.Plan) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	sets, err := rangeSets(p.Subnets)
	if err != nil {
		return nil, nil, err
	}
	wanted, err := assign(p.IPs, sets)
	if err != nil {
		return nil, nil, err
	}
	gateways = append(gateways, p.Gateways...)
	for i, set := range sets {
		addr, gw, err := s.fromSet(set, i, wanted[i])
		if err != nil {
			return addrs, nil, err
		}
		addrs = append(addrs, addr)
		gateways = addGateway(gateways, gw)
	}
	return addrs, gateways, nil
}

// addGateway appends gw unless its family has one.
func addGateway(gateways []netip.Addr, gw netip.Addr) []netip.Addr {
	for _, have := range gateways {
		if have.Is4() == gw.Is4() {
			return gateways
		}
	}
	return append(gateways, gw)
}

// fromSet takes an address of set, the one wanted if it is valid.
func (s *store) fromSet(set allocator.RangeSet, index int, wanted netip.Addr) (netip.Prefix, netip.Addr, error) {
	var ask net.IP
	if wanted.IsValid() {
		ask = wanted.AsSlice()
	}
	got, err := allocator.NewIPAllocator(&set, s, index).Get(s.object.Owner, s.object.IfName, ask)
	switch {
	case s.fault != nil:
		return netip.Prefix{}, netip.Addr{}, s.fault
	case err != nil && ask != nil:
		return netip.Prefix{}, netip.Addr{}, s.taken(wanted, set)
	case err != nil:
		return netip.Prefix{}, netip.Addr{}, s.empty(set)
	}
	ones, _ := got.Address.Mask.Size()
	return netip.PrefixFrom(toAddr(got.Address.IP), ones), toAddr(got.Gateway), nil
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// rangeSets makes host-local's range sets of the pools.
func rangeSets(subnets []netsetup.Subnet) ([]allocator.RangeSet, error) {
	if len(subnets) == 0 {
		return nil, fmt.Errorf("no pool; give ipam a subnet, as 10.1.0.0/24")
	}
	var sets []allocator.RangeSet
	for i, sub := range subnets {
		if err := netsetup.CheckSubnet(sub); err != nil {
			return nil, fmt.Errorf("subnet %s: %w", sub.Prefix, err)
		}
		r := allocator.Range{
			Subnet:  types.IPNet{IP: sub.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(sub.Prefix.Bits(), sub.Prefix.Addr().BitLen())},
			Gateway: toIP(sub.Gateway), RangeStart: toIP(sub.RangeStart), RangeEnd: toIP(sub.RangeEnd),
		}
		if i > 0 && sub.Alternative {
			sets[len(sets)-1] = append(sets[len(sets)-1], r)
		} else {
			sets = append(sets, allocator.RangeSet{r})
		}
	}
	for i := range sets {
		if err := sets[i].Canonicalize(); err != nil {
			return nil, fmt.Errorf("pool %s: %w", describe(sets[i]), err)
		}
		for j := range i {
			if sets[i].Overlaps(&sets[j]) {
				return nil, fmt.Errorf("pools %s and %s overlap; separate them", describe(sets[j]), describe(sets[i]))
			}
		}
	}
	return sets, nil
}

// toIP returns a as net.IP, nil if it is zero.
func toIP(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

// assign gives each address that is asked for to the set it lies in. Sets that
// nothing is asked of have a zero address.
func assign(ips []netip.Prefix, sets []allocator.RangeSet) ([]netip.Addr, error) {
	wanted := make([]netip.Addr, len(sets))
	for _, want := range ips {
		i, err := setOf(want, sets)
		if err != nil {
			return nil, fmt.Errorf("address %s: %w", want.Addr(), err)
		}
		if wanted[i].IsValid() {
			return nil, fmt.Errorf("address %s: %s is asked for already, and pool %s gives one; leave one out",
				want.Addr(), wanted[i], describe(sets[i]))
		}
		wanted[i] = want.Addr()
	}
	return wanted, nil
}

// setOf finds the set that want can come from.
func setOf(want netip.Prefix, sets []allocator.RangeSet) (int, error) {
	ip, all := net.IP(want.Addr().AsSlice()), make([]string, len(sets))
	for i, set := range sets {
		all[i] = describe(set)
		for _, r := range set {
			subnet := net.IPNet(r.Subnet)
			if !subnet.Contains(ip) {
				continue
			}
			ones, _ := r.Subnet.Mask.Size()
			switch {
			case want.Bits() >= 0 && want.Bits() != ones:
				return 0, fmt.Errorf("prefix length /%d, but the network's subnet is %s; write %s/%d", want.Bits(), subnet.String(), want.Addr(), ones)
			case ip.Equal(r.Gateway):
				return 0, fmt.Errorf("the gateway of %s; choose another", subnet.String())
			case !r.Contains(ip):
				return 0, fmt.Errorf("outside of the pool's range %s; choose one inside", r.String())
			}
			return i, nil
		}
	}
	return 0, fmt.Errorf("outside of the network's subnets %s; choose one inside", strings.Join(all, ", "))
}

// describe names the subnets of a set.
func describe(set allocator.RangeSet) string {
	var all []string
	for _, r := range set {
		subnet := net.IPNet(r.Subnet)
		all = append(all, subnet.String())
	}
	return strings.Join(all, " or ")
}
