package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

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
		if p.NoLease {
			addrs = append(addrs, want)
			continue
		}
		ok, err := s.reserve(want.Addr(), noRange)
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
func (s *store) fromSet(set rangeSet, index int, wanted netip.Addr) (got netip.Prefix, gateway netip.Addr, err error) {
	rangeID, empty := strconv.Itoa(index), true
	try := func(a netip.Addr, r addrRange) (more bool) {
		var ok bool
		if ok, err = s.reserve(a, rangeID); ok {
			got, gateway = netip.PrefixFrom(a, r.subnet.Bits()), r.gateway
		}
		empty = empty && !ok
		return !ok && err == nil
	}
	if wanted.IsValid() {
		r, _ := set.rangeOf(wanted)
		try(wanted, r)
	} else {
		set.candidates(s.lastReserved(rangeID), try)
	}
	switch {
	case err != nil || !empty:
		return got, gateway, err
	case wanted.IsValid():
		return got, gateway, s.taken(wanted, set)
	}
	return got, gateway, s.empty(set)
}

// assign gives each address that is asked for to the set it lies in. Sets that
// nothing is asked of have a zero address.
func assign(ips []netip.Prefix, sets []rangeSet) ([]netip.Addr, error) {
	wanted := make([]netip.Addr, len(sets))
	for _, want := range ips {
		i, err := setOf(want, sets)
		if err != nil {
			return nil, fmt.Errorf("address %s: %w", want.Addr(), err)
		}
		if wanted[i].IsValid() {
			return nil, fmt.Errorf("address %s: %s is asked for already, and pool %s gives one; leave one out",
				want.Addr(), wanted[i], sets[i])
		}
		wanted[i] = want.Addr()
	}
	return wanted, nil
}

// setOf finds the set that want can come from.
func setOf(want netip.Prefix, sets []rangeSet) (int, error) {
	var reason error // why the first pool of its subnet can't give it: another one may
	all := make([]string, len(sets))
	for i, set := range sets {
		all[i] = set.String()
		for _, r := range set {
			if !r.subnet.Contains(want.Addr()) {
				continue
			}
			why := r.whyNot(want)
			if why == nil {
				return i, nil
			}
			if reason == nil {
				reason = why
			}
		}
	}
	if reason != nil {
		return 0, reason
	}
	return 0, fmt.Errorf("outside of the network's subnets %s; choose one inside", strings.Join(all, ", "))
}

// whyNot says why r can't give want, which is of its subnet; nil if it can.
func (r addrRange) whyNot(want netip.Prefix) error {
	a := want.Addr()
	switch {
	case want.Bits() >= 0 && want.Bits() != r.subnet.Bits():
		return fmt.Errorf("prefix length /%d, but the network's subnet is %s; write %s/%d", want.Bits(), r.subnet, a, r.subnet.Bits())
	case a == r.gateway:
		return fmt.Errorf("the gateway of %s; choose another", r.subnet)
	case !r.contains(a):
		return fmt.Errorf("outside of the pool's range %s; choose one inside", r)
	}
	return nil
}
