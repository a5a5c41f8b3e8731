package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// requestedSets are the pools that r brings along (ipRanges), which come before the
// network's own, as host-local has it.
func requestedSets(r Request) (sets []poolSet) {
	for i, subnets := range r.Runtime.IPRanges {
		var set poolSet
		for j, s := range subnets {
			s.Alternative = false
			set = append(set, placedPool{s, fmt.Sprintf("%s: ipRanges[%d][%d]", r.where(), i, j)})
		}
		sets = append(sets, set)
	}
	return sets
}

// takePools makes the plan's subnets of the sets.
func (p *Plan) takePools(sets []poolSet) {
	for _, set := range sets {
		for i, pool := range set {
			pool.Alternative = i > 0
			p.Subnets = append(p.Subnets, pool.Subnet)
		}
	}
}

// checkPools finds pools that can't be: by themselves, in their set, or beside each
// other. where is the file. unasked says that there may be further ones.
func checkPools(where string, sets []poolSet, unasked bool) error {
	if len(sets) == 0 && !unasked {
		return fmt.Errorf("%s: plugins[0].ipam.ranges: missing; [[{\"subnet\": \"10.1.0.0/24\"}]] is one", where)
	}
	var faults []error
	var before []placedPool
	for _, set := range sets {
		for _, pool := range set {
			if !pool.Prefix.IsValid() {
				continue // missing or no prefix, which is told
			}
			if err := CheckSubnet(pool.Subnet); err != nil {
				faults = append(faults, faultf(pool.place+".subnet", pool.Prefix.String(), "%w", err))
				continue
			}
			if first := set[0]; first.Prefix.IsValid() && first.Prefix.Addr().Is4() != pool.Prefix.Addr().Is4() {
				faults = append(faults, faultf(pool.place+".subnet", pool.Prefix.String(), "of another family than %s, and a set gives one address; a set of its own", first.Prefix))
			}
			for _, other := range before {
				if pool.overlaps(other.Subnet) {
					faults = append(faults, faultf(pool.place+".subnet", pool.Prefix.String(), "its range %s overlaps %s of %s; separate them", pool.span(), other.span(), other.Prefix))
				}
			}
			before = append(before, pool)
		}
	}
	return errors.Join(faults...)
}

// bounds returns the first and the last address that the pool gives.
func (s Subnet) bounds() (first, last netip.Addr) {
	if first = s.RangeStart; !first.IsValid() {
		first = s.Prefix.Addr().Next()
	}
	if last = s.RangeEnd; !last.IsValid() {
		if last = lastAddr(s.Prefix); last.Is4() {
			last = last.Prev() // before the broadcast address
		}
	}
	return first, last
}

func (s Subnet) span() string {
	first, last := s.bounds()
	return first.String() + "-" + last.String()
}

func (s Subnet) overlaps(other Subnet) bool {
	first, last := s.bounds()
	otherFirst, otherLast := other.bounds()
	return first.Is4() == otherFirst.Is4() && !last.Less(otherFirst) && !otherLast.Less(first)
}

// poolOf returns the number of the set that a can come from, and why from none.
func poolOf(a netip.Prefix, pools []Subnet) (set int, err error) {
	var all []string
	var reason error
	set = -1
	for _, s := range pools {
		if !s.Alternative {
			set++
		}
		all = append(all, s.Prefix.String())
		if !s.Prefix.Contains(a.Addr()) {
			continue
		}
		why := s.whyNot(a)
		if why == nil {
			return set, nil
		}
		if reason == nil {
			reason = why
		}
	}
	if reason == nil {
		reason = fmt.Errorf("outside of the network's subnets %v; an address inside", all)
	}
	return 0, reason
}

// whyNot says why the pool can't give a, which is of its subnet.
func (s Subnet) whyNot(a netip.Prefix) error {
	if a.Bits() >= 0 && a.Bits() != s.Prefix.Bits() {
		return fmt.Errorf("its subnet is %s; write %s/%d", s.Prefix, a.Addr(), s.Prefix.Bits())
	}
	if a.Addr() == s.gateway() {
		return errors.New("the network's gateway has it; another one")
	}
	if err := checkHost(s.Prefix, a.Addr()); err != nil {
		return err
	}
	if first, last := s.bounds(); a.Addr().Less(first) || last.Less(a.Addr()) {
		return fmt.Errorf("outside of the pool's range %s; an address inside", s.span())
	}
	return nil
}

// takeAsked adds to p what conf says that the container asks for, which the plan's
// own request goes before. host-local gives what anybody asks for; static gives what
// the last one in the order of precedence says.
func (p *Plan) takeAsked(conf netConf) error {
	asked := conf.asked
	if p.MAC == "" {
		p.MAC = asked.mac
	}
	if mac, err := ParseMAC(p.MAC); err == nil {
		p.MAC = mac.String() // as the kernel's is compared with
	}
	if dns := p.Runtime.DNS; !dns.isZero() {
		p.DNS = dns
	} else if !asked.dns.isZero() {
		p.DNS = asked.dns
	}
	if conf.ipam.kind != "static" {
		for _, a := range slices.Concat(asked.ips, asked.args, asked.env) {
			if !slices.ContainsFunc(p.IPs, func(have netip.Prefix) bool { return have.Addr() == a.Addr() }) {
				p.IPs = append(p.IPs, a.Prefix)
			}
		}
		return nil
	}
	return p.takeStatic(conf)
}

// takeStatic takes the addresses that the request asks for, else those of
// runtimeConfig, else of args, else those that the configuration writes down and
// those of CNI_ARGS. Each one's subnet counts as a pool, for its gateway.
func (p *Plan) takeStatic(conf netConf) error {
	written := slices.Clone(conf.ipam.addresses)
	gateways := slices.Clone(conf.ipam.gateways)
	for _, a := range conf.asked.env {
		written, gateways = append(written, a.Prefix), append(gateways, netip.Addr{})
	}
	for _, gw := range conf.asked.gateways {
		for i, a := range written {
			if a.Bits() >= 0 && a.Contains(gw) {
				gateways[i] = gw
			}
		}
	}
	for i, a := range written {
		if a.Bits() >= 0 {
			p.Subnets = append(p.Subnets, Subnet{Prefix: a.Masked(), Gateway: gateways[i]})
		}
	}
	if len(p.IPs) > 0 {
		return nil
	}
	from := conf.asked.ips
	if len(from) == 0 {
		from = conf.asked.args
	}
	for _, a := range from {
		p.IPs = append(p.IPs, a.Prefix)
	}
	if len(from) == 0 {
		p.IPs = written
	}
	if len(p.IPs) == 0 && !conf.ipam.listed && !p.Unasked {
		return fmt.Errorf("%s: plugins[0].ipam.addresses: missing, and no address is asked for; [{\"address\": \"10.1.0.2/24\"}] is one", p.fileName())
	}
	return nil
}
