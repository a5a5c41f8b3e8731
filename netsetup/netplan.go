package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// planNet makes the plan of an interface of its own from what its network says and
// what r asks for beside it, and returns every fault of r. r wins.
func planNet(r Request, conf netConf) (Plan, error) {
	p := Plan{
		Request: r, IPAM: conf.ipam.kind, DataDir: conf.ipam.dataDir, ResolvConf: conf.ipam.resolvConf,
		Masquerade: conf.ipMasq, Gateway: conf.isGateway || conf.isDefault, DAD: conf.dad,
		DNS: conf.dns,
	}
	if p.DNS.isZero() {
		p.DNS = conf.ipam.dns
	}
	if p.MTU == 0 {
		p.MTU = conf.mtu
	}
	p.UplinkMTU = p.MTU == 0
	for _, set := range conf.ipam.ranges {
		p.Subnets = append(p.Subnets, set...)
	}
	p.takeStatic(conf.ipam)
	p.Routes = slices.Concat(conf.ipam.routes, r.Routes)
	v4, v6 := p.families()
	p.NoIPv6 = v4 && !v6
	if conf.isDefault {
		p.addDefaults(v4, v6)
	}
	f := requestFaults{where: r.where()}
	f.check(p, v6)
	return p, errors.Join(f.faults...)
}

func (d DNS) isZero() bool {
	return len(d.Nameservers) == 0 && d.Domain == "" && len(d.Search) == 0 && len(d.Options) == 0
}

// takeStatic takes the addresses that the configuration writes down, unless r asks
// for others. Each one's subnet counts as a pool, for its gateway.
func (p *Plan) takeStatic(conf ipamConf) {
	for i, a := range conf.addresses {
		p.Subnets = append(p.Subnets, Subnet{Prefix: a.Masked(), Gateway: conf.gateways[i]})
	}
	if len(p.IPs) == 0 {
		p.IPs = slices.Clone(conf.addresses)
	}
}

// families says of which families the interface gets addresses.
func (p *Plan) families() (v4, v6 bool) {
	note := func(a netip.Addr) {
		v4 = v4 || a.Is4()
		v6 = v6 || a.Is6()
	}
	for _, a := range p.IPs {
		note(a.Addr())
	}
	for _, s := range p.Subnets {
		note(s.Prefix.Addr())
	}
	return v4, v6
}

// addDefaults adds the default routes that isDefaultGateway means, through the
// network's gateways, where the routes have none.
func (p *Plan) addDefaults(v4, v6 bool) {
	for _, want := range []struct {
		yes bool
		dst netip.Prefix
	}{{v4, defaultRoute(netip.IPv4Unspecified())}, {v6, defaultRoute(netip.IPv6Unspecified())}} {
		if want.yes && !slices.ContainsFunc(p.Routes, func(r Route) bool { return r.Dst == want.dst }) {
			p.Routes = append(p.Routes, Route{Dst: want.dst})
		}
	}
}

// requestFaults collects what is wrong with a request.
type requestFaults struct {
	where  string
	faults []error
}

func (f *requestFaults) add(what, value string, err error) {
	if err != nil {
		f.faults = append(f.faults, faultf(f.where+": "+what, value, "%w", err))
	}
}

func (f *requestFaults) check(p Plan, v6 bool) {
	if p.IfName != "" {
		f.add("interface name", p.IfName, CheckIfName(p.IfName))
	}
	f.add("mtu", fmt.Sprint(p.MTU), CheckMTU(p.MTU, v6))
	if p.MAC != "" {
		_, err := ParseMAC(p.MAC)
		f.add("mac", p.MAC, err)
	}
	if p.IPAM == "" && len(p.IPs) > 0 {
		f.add("ip", p.IPs[0].String(), errors.New("the network gives no addresses; set its ipam to static or host-local"))
	}
	f.addresses(p)
	f.gateways(p)
	for _, r := range p.Routes {
		f.add("route", r.Dst.String(), checkRoute(r))
	}
}

func (f *requestFaults) addresses(p Plan) {
	for i, a := range p.IPs {
		value := a.String()
		if a.Bits() < 0 {
			value = a.Addr().String()
		}
		err := CheckAddress(a)
		if err == nil && p.IPAM == "host-local" {
			err = inPool(a, p.Subnets)
		}
		f.add("ip", value, err)
		if p.IPAM == "static" && a.Bits() < 0 {
			f.add("ip", value, errors.New("no prefix length, and no pool that has one; write it behind the address, as /24"))
		}
		for _, before := range p.IPs[:i] {
			if before.Addr() == a.Addr() {
				f.add("ip", value, errors.New("given twice"))
			}
		}
	}
}

// inPool says why a can't come from pools: none has it, or with another prefix
// length.
func inPool(a netip.Prefix, pools []Subnet) error {
	var all []string
	for _, s := range pools {
		all = append(all, s.Prefix.String())
		if !s.Prefix.Contains(a.Addr()) {
			continue
		}
		if a.Bits() >= 0 && a.Bits() != s.Prefix.Bits() {
			return fmt.Errorf("its subnet is %s; write %s/%d", s.Prefix, a.Addr(), s.Prefix.Bits())
		}
		if a.Addr() == s.gateway() {
			return errors.New("the network's gateway has it; another one")
		}
		return checkHost(s.Prefix, a.Addr())
	}
	return fmt.Errorf("outside of the network's subnets %v; an address inside", all)
}

// gateway returns the pool's gateway: its first address if none is given.
func (s Subnet) gateway() netip.Addr {
	if s.Gateway.IsValid() {
		return s.Gateway
	}
	return s.Prefix.Masked().Addr().Next()
}

func (f *requestFaults) gateways(p Plan) {
	// Without its length, an address has its pool's.
	links := slices.DeleteFunc(slices.Clone(p.IPs), func(a netip.Prefix) bool { return a.Bits() < 0 })
	for _, s := range p.Subnets {
		links = append(links, s.Prefix)
	}
	for i, gw := range p.Gateways {
		f.add("gateway", gw.String(), CheckGateway(gw, links))
		for _, before := range p.Gateways[:i] {
			if before.Is4() == gw.Is4() {
				f.add("gateway", gw.String(), fmt.Errorf("the second of its family, after %s; one", before))
			}
		}
	}
}

func checkRoute(r Route) error {
	switch {
	case !r.Dst.IsValid():
		return errors.New("no destination; as 10.2.0.0/16")
	case r.Dst != r.Dst.Masked():
		return fmt.Errorf("has host bits; the destination is %s", r.Dst.Masked())
	case r.Dst.Addr().IsMulticast():
		return errors.New("a multicast destination")
	case r.Gateway.IsValid() && r.Gateway.Is4() && r.Dst.Addr().Is6():
		return fmt.Errorf("gateway %s is of another family", r.Gateway)
	case r.MTU < 0 || r.MTU > maxMTU:
		return fmt.Errorf("mtu %d out of range; 0 to %d", r.MTU, maxMTU)
	case r.Metric < 0 || r.Metric > 1<<31-1:
		return fmt.Errorf("metric %d out of range; 0 to %d", r.Metric, 1<<31-1)
	}
	return nil
}

// attachment makes of p, and the addresses that it got, what Configure needs.
func (p *Plan) attachment(addrs []netip.Prefix, gateways []netip.Addr) (Attachment, error) {
	a := Attachment{
		Network: p.networkName(), Strategy: p.Strategy, IfName: p.IfName, Addresses: addrs,
		NoIPv6: p.NoIPv6, DAD: p.DAD, DNS: p.DNS, Masquerade: p.Masquerade, MAC: p.MAC,
	}
	if a.MAC == "" {
		a.MAC = deriveMAC(addrs).String()
	}
	a.Gateways, a.Routes = p.routesInside(addrs, gateways)
	if a.DNS.isZero() && p.ResolvConf != "" {
		host, err := readHostResolvers(p.ResolvConf, systemdResolvers)
		if err != nil {
			return a, err
		}
		a.DNS = host.dns()
	}
	return a, a.checkOwn()
}

// dns says the same as a network's configuration would.
func (h hostResolvers) dns() DNS {
	d := DNS{Search: h.search, Options: h.options}
	for _, a := range h.servers {
		d.Nameservers = append(d.Nameservers, a.String())
	}
	return d
}

// checkOwn finds a gateway that is the container itself: an address store that
// gave it away would cut everybody off.
func (a Attachment) checkOwn() error {
	for _, gw := range a.Gateways {
		if slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool { return p.Addr() == gw }) {
			return fmt.Errorf("%s: address %s: the gateway has it", a.IfName, gw)
		}
	}
	return nil
}

// checkMTU looks at an MTU that came from a device of the host.
func (a Attachment) checkMTU() error {
	for _, p := range a.Addresses {
		if err := CheckMTU(a.MTU, p.Addr().Is6()); err != nil {
			return fmt.Errorf("MTU %d: %w", a.MTU, err)
		}
	}
	return nil
}

// routesInside divides the routes into default gateways, one a family, and further
// routes, and fills in the network's gateways.
func (p *Plan) routesInside(addrs []netip.Prefix, gateways []netip.Addr) (defaults []netip.Addr, routes []Route) {
	defaults = slices.Clone(p.Gateways)
	for _, r := range p.Routes {
		if !r.Gateway.IsValid() {
			r.Gateway = p.gatewayOf(r.Dst.Addr(), addrs, gateways)
		}
		plain := r.Dst.Bits() == 0 && r.MTU == 0 && r.Metric == 0
		if !plain || !r.Gateway.IsValid() || r.Gateway.Is4() != r.Dst.Addr().Is4() {
			routes = append(routes, r)
			continue
		}
		if !slices.ContainsFunc(defaults, func(gw netip.Addr) bool { return gw.Is4() == r.Gateway.Is4() }) {
			defaults = append(defaults, r.Gateway)
		}
	}
	return defaults, routes
}

func (p *Plan) networkName() string {
	if p.Network == nil {
		return p.Strategy
	}
	return p.Network.Name
}

// gatewayOf returns the network's gateway for the family of dst: the one asked for,
// the one that IPAM gave, else that of an address's subnet. Zero if the network
// has none.
func (p *Plan) gatewayOf(dst netip.Addr, addrs []netip.Prefix, gateways []netip.Addr) netip.Addr {
	for _, gw := range slices.Concat(p.Gateways, gateways) {
		if gw.IsValid() && gw.Is4() == dst.Is4() {
			return gw
		}
	}
	for _, a := range addrs {
		if a.Addr().Is4() == dst.Is4() {
			return p.subnetGateway(a)
		}
	}
	return netip.Addr{}
}

// subnetGateway returns the gateway of a's subnet, as the network says, else as the
// request says. Where neither does, it is the first address if the host is to
// be the gateway.
func (p *Plan) subnetGateway(a netip.Prefix) netip.Addr {
	for _, s := range p.Subnets {
		if s.Prefix == a.Masked() && (s.Gateway.IsValid() || p.IPAM == "host-local") {
			return s.gateway()
		}
	}
	for _, gw := range p.Gateways {
		if a.Contains(gw) {
			return gw
		}
	}
	if p.Gateway {
		return a.Masked().Addr().Next()
	}
	return netip.Addr{}
}
