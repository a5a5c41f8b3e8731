package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// planNet makes the plan of an interface of its own from what its network says and
// what r asks for beside it, and returns every fault of r. r wins.
func planNet(r Request, conf netConf) (Plan, error) {
	p := Plan{
		Request: r, IPAM: conf.ipam.kind, DataDir: conf.ipam.dataDir, ResolvConf: conf.ipam.resolvConf,
		Masquerade: conf.ipMasq && conf.ipam.kind != "", Gateway: conf.isGateway || conf.isDefault, DAD: conf.dad,
		DNS: conf.dns,
	}
	p.IPs = slices.Clone(r.IPs)
	if p.DNS.isZero() {
		p.DNS = conf.ipam.dns
	}
	if p.MTU == 0 {
		p.MTU = conf.mtu
	}
	p.UplinkMTU = p.MTU == 0
	f := requestFaults{where: r.where()}
	if conf.ipam.kind == "host-local" {
		sets := slices.Concat(requestedSets(r), conf.asked.ranges, conf.ipam.sets)
		p.takePools(sets)
		f.faults = append(f.faults, checkPools(r.fileName(), sets, r.Unasked))
	}
	f.faults = append(f.faults, p.takeAsked(conf))
	v4, v6 := p.families()
	p.NoIPv6 = v4 && !v6
	p.takeRoutes(conf.ipam.routes, &f)
	if p.Defaults = conf.isDefault; p.Defaults {
		p.addDefaults(v4, v6)
	}
	f.places, f.macPlace = conf.asked.places(), conf.asked.macPlace
	if r.MAC != "" {
		f.macPlace = ""
	}
	if r.MTU == 0 && conf.mtu != 0 {
		f.mtuPlace = r.fileName() + ": plugins[0].mtu"
	}
	f.check(p, v6)
	return p, errors.Join(f.faults...)
}

// takeRoutes adds the network's routes before those that the request wants, unless it
// has one to the same destination.
func (p *Plan) takeRoutes(routes []placedRoute, f *requestFaults) {
	asked := p.Routes
	p.Routes = nil
	for _, r := range routes {
		err := checkRoute(r.Route)
		if err == nil {
			err = p.checkFamily(r.Dst.Addr())
		}
		if err == nil && slices.Contains(p.Routes, r.Route) {
			err = errors.New("given twice; leave one out")
		}
		if err != nil {
			f.faults = append(f.faults, faultf(r.place+".dst", r.Dst.String(), "%w", err))
			continue
		}
		same := func(a Route) bool { return a.Dst == r.Dst && a.Table == r.Table && a.Metric == r.Metric }
		if !slices.ContainsFunc(asked, same) {
			p.Routes = append(p.Routes, r.Route)
		}
	}
	for _, r := range asked {
		err := checkRoute(r)
		if err == nil {
			err = p.checkFamily(r.Dst.Addr())
		}
		f.add("route", r.Dst.String(), err)
	}
	p.Routes = append(p.Routes, asked...)
}

// checkFamily refuses an IPv6 destination where the interface will have no IPv6.
func (p *Plan) checkFamily(dst netip.Addr) error {
	if dst.Is6() && p.NoIPv6 {
		return errors.New("the network gives no IPv6 address, so that its interfaces have no IPv6; add a pool or an address, or leave the route out")
	}
	return nil
}

func (d DNS) isZero() bool {
	return len(d.Nameservers) == 0 && d.Domain == "" && len(d.Search) == 0 && len(d.Options) == 0
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
		if want.yes && !slices.ContainsFunc(p.Routes, func(r Route) bool { return r.Dst == want.dst && r.Table == 0 }) {
			p.Routes = append(p.Routes, Route{Dst: want.dst})
		}
	}
}

// requestFaults collects what is wrong with a request.
type requestFaults struct {
	where  string
	faults []error

	// Where values were written that aren't the request's own; "" = they are.
	places             map[netip.Addr]string
	mtuPlace, macPlace string
}

// addAt is add for a value that was perhaps written elsewhere.
func (f *requestFaults) addAt(place, what, value string, err error) {
	switch {
	case err != nil && place != "":
		f.faults = append(f.faults, faultf(place, value, "%w", err))
	default:
		f.add(what, value, err)
	}
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
	f.addAt(f.mtuPlace, "mtu", fmt.Sprint(p.MTU), CheckMTU(p.MTU, v6))
	if p.MAC != "" {
		_, err := ParseMAC(p.MAC)
		f.addAt(f.macPlace, "mac", p.MAC, err)
	}
	if p.IPAM == "" && len(p.IPs) > 0 {
		f.addIP(p.IPs[0], errors.New("the network gives no addresses; set its ipam to static or host-local"))
	}
	f.addresses(p)
	f.gateways(p)
}

// addIP names an address by the place where it was written.
func (f *requestFaults) addIP(a netip.Prefix, err error) {
	value := a.String()
	if a.Bits() < 0 {
		value = a.Addr().String()
	}
	f.addAt(f.places[a.Addr()], "ip", value, err)
}

func (f *requestFaults) addresses(p Plan) {
	taken := make(map[int]netip.Addr) // by set
	for i, a := range p.IPs {
		err := CheckAddress(a)
		if err == nil && p.IPAM == "static" && a.Bits() < 0 {
			err = errors.New("no prefix length, and no pool that has one; write it behind the address, as /24")
		}
		twice := slices.ContainsFunc(p.IPs[:i], func(b netip.Prefix) bool { return b.Addr() == a.Addr() })
		if err == nil && twice {
			err = errors.New("given twice; leave one out")
		}
		if err == nil && p.IPAM == "host-local" && len(p.Subnets) > 0 {
			var set int
			if set, err = poolOf(a, p.Subnets); err == nil && taken[set].IsValid() {
				err = fmt.Errorf("%s is asked for already, and one set of pools gives one address; leave one out", taken[set])
			} else if err == nil {
				taken[set] = a.Addr()
			}
		}
		f.addIP(a, err)
	}
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
	}
	for _, n := range []struct {
		name        string
		value, most int
	}{{"priority", r.Metric, 1<<31 - 1}, {"advmss", r.AdvMSS, maxMTU}, {"table", r.Table, 1<<31 - 1}, {"scope", r.Scope, 255}} {
		if n.value < 0 || n.value > n.most {
			return fmt.Errorf("%s %d out of range; 0 to %d", n.name, n.value, n.most)
		}
	}
	if r.Scope >= unix.RT_SCOPE_LINK && r.Gateway.IsValid() {
		return fmt.Errorf("scope %d is that of a route on the link, and it has a gateway; one of them", r.Scope)
	}
	return nil
}

// attachment makes of p, and the addresses that it got, what Configure needs.
func (p *Plan) attachment(addrs []netip.Prefix, gateways []netip.Addr) (Attachment, error) {
	a := Attachment{
		Network: p.networkName(), Strategy: p.Strategy, IfName: p.IfName, Addresses: addrs,
		NoIPv6: p.NoIPv6, DAD: p.DAD, DNS: p.DNS, Masquerade: p.Masquerade, MAC: p.MAC,
		Routed: p.Gateway && !p.Masquerade && len(addrs) > 0,
	}
	a.Subnets = p.masqueradedWhole(addrs)
	if a.MAC == "" {
		a.MAC = deriveMAC(addrs).String()
	}
	a.Gateways, a.Routes = p.routesInside(addrs, gateways)
	if a.DNS.isZero() && p.ResolvConf != "" {
		if _, err := os.Stat(p.ResolvConf); err != nil {
			return a, fmt.Errorf("%s: plugins[0].ipam.resolvConf: %w", p.fileName(), err)
		}
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
		if !r.Gateway.IsValid() && r.Scope < unix.RT_SCOPE_LINK {
			r.Gateway = p.gatewayOf(r.Dst.Addr(), addrs, gateways)
		}
		plain := r == Route{Dst: defaultRoute(r.Dst.Addr()), Gateway: r.Gateway}
		if !plain || !r.Gateway.IsValid() || r.Gateway.Is4() != r.Dst.Addr().Is4() {
			routes = append(routes, r)
			continue
		}
		family := func(gw netip.Addr) bool { return gw.Is4() == r.Gateway.Is4() }
		switch {
		case !slices.ContainsFunc(defaults, family):
			defaults = append(defaults, r.Gateway)
		case !slices.Contains(defaults, r.Gateway) && !slices.ContainsFunc(p.Gateways, family):
			routes = append(routes, r) // a second one beside the first
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

// SubnetGateway returns the gateway of a's subnet, as the network or the request
// says; where neither does, the subnet's first address if the host is to be the
// gateway, else a zero address.
func (p *Plan) SubnetGateway(a netip.Prefix) netip.Addr { return p.subnetGateway(a) }

// DefaultRouteOf tells whether r is a default route that isDefaultGateway means,
// and not one of the routes that were written down.
func (p *Plan) DefaultRouteOf(r Route) bool {
	return r == Route{Dst: defaultRoute(r.Dst.Addr())} && p.Defaults
}

// PlanAddresses is the plan of a network's addresses alone: what its "ipam" says, and
// what r asks of it. Whatever else the configuration holds is another plugin's.
func PlanAddresses(r Request) (Plan, error) {
	c := &confReader{where: r.fileName()}
	var conf netConf
	v, err := readJSON(r.Network.Plugins[0].Raw)
	if err != nil {
		return Plan{}, fmt.Errorf("%s: %w", c.where, err)
	}
	c.known("plugins[0]", &v, []confKey{
		{"ipam", c.ipam(&conf.ipam)}, {"args", c.args(&conf.asked)}, {"runtimeConfig", c.runtimeConfig(&conf.asked)},
	})
	c.environment(r.Runtime.Args, &conf.asked)
	conf.ipam.versionLimit(c, r.Network.CNIVersion)
	p, err := planNet(r, conf)
	return p, errors.Join(errors.Join(c.faults...), err)
}
