package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ptp connects a container by a veth pair to the host alone, which routes each of
// its addresses to its end. The container reaches its neighbours in the subnet
// through the host, too. Configuration and what it leaves in the kernel are those
// of the CNI plugin of the same name.
type ptp struct{}

// Plan validates r without asking the kernel and returns all its faults at once.
func (ptp) Plan(r Request) (Plan, error) {
	conf, err := confOf(r, func(*confReader, *netConf) []confKey { return nil })
	conf.isGateway = true // the host's end has the gateway's address
	p, faults := planNet(r, conf)
	if err == nil && p.IPAM == "" {
		err = fmt.Errorf("%s: ipam: missing; a point-to-point network needs addresses", r.where())
	}
	return p, errors.Join(err, faults)
}

// Attach puts one end of a pair into target and gives the other one the gateway's
// address and the routes to the container. All of it dies with the pair.
func (ptp) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	if len(addrs) == 0 {
		return Attachment{}, errors.New("a point-to-point network needs addresses, and there is none")
	}
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	a.Routes = slices.Concat(ptpRoutes(p, addrs), a.Routes)
	if a.MTU = p.MTU; a.MTU == 0 {
		if a.MTU, err = h.uplinkMTU(); err != nil {
			return Attachment{}, fmt.Errorf("MTU of the uplink: %w", err)
		}
	}
	if err := a.checkMTU(); err != nil {
		return Attachment{}, fmt.Errorf("uplink: %w", err)
	}
	name, err := h.addPair(target, pairOf(p, a, 0))
	if err != nil {
		return Attachment{}, err
	}
	a.HostIf = name
	if err := h.finishPtp(p, a); err != nil {
		h.dropLink(name)
		return Attachment{}, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// ptpRoutes are the container's routes to its subnets: the gateway on the link, and
// everybody else through it.
func ptpRoutes(p Plan, addrs []netip.Prefix) (routes []Route) {
	for _, a := range addrs {
		gw := p.subnetGateway(a)
		if !gw.IsValid() {
			continue
		}
		add := func(r Route) {
			if !slices.Contains(routes, r) { // two addresses of one subnet
				routes = append(routes, r)
			}
		}
		add(Route{Dst: netip.PrefixFrom(gw, gw.BitLen())})
		if a.Bits() < a.Addr().BitLen() {
			add(Route{Dst: a.Masked(), Gateway: gw})
		}
	}
	return routes
}

// finishPtp gives the host's end its settings, addresses and routes, before it
// can have a carrier.
func (h *Host) finishPtp(p Plan, a Attachment) error {
	l, err := h.c.linkByName(a.HostIf)
	if err != nil {
		return err
	}
	if err := h.c.ownRoutes(l.name, false); err != nil {
		return err
	}
	for _, to := range a.Addresses {
		gw := p.subnetGateway(to)
		if !gw.IsValid() {
			return fmt.Errorf("address %s: its subnet has no gateway", to)
		}
		err := h.c.addUsable(l, netip.PrefixFrom(gw, gw.BitLen()), unix.IFA_F_NODAD)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err // EEXIST: two addresses of one subnet
		}
		if err := h.c.addRoute(ptpHostRoute(l.index, to.Addr())); err != nil {
			return err
		}
	}
	return nil
}

func ptpHostRoute(index int, to netip.Addr) fibRoute {
	r := fibRoute{dst: netip.PrefixFrom(to, to.BitLen()), index: index}
	if to.Is4() {
		r.scope = unix.RT_SCOPE_HOST // as the plugin sets it
	}
	return r
}

// Check returns every difference between a and the kernel, host side and inside.
func (ptp) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkBoth(target, a, h.checkPtp)
}

// Configure finishes the interface from within the container's namespace. Its
// addresses come without the kernel's own route to the subnet.
func (ptp) Configure(in *Inside, a Attachment) error {
	return in.finish(a, unix.IFA_F_NOPREFIXROUTE)
}

// Commands returns what Attach and Configure do, in the words of iproute2.
func (ptp) Commands(p Plan, a Attachment) []Command {
	var s script
	s.pair(a.HostIf, pairOf(p, a, 0), "")
	s.host("%s", setting("ipv6", a.HostIf, "accept_dad", "0"))
	var gateways []netip.Addr
	for _, to := range a.Addresses {
		gw := p.subnetGateway(to)
		if gw.IsValid() && !slices.Contains(gateways, gw) {
			gateways = append(gateways, gw)
			options := ""
			if gw.Is6() {
				options = " nodad"
			}
			s.host("%s", addrCommand(a.HostIf, netip.PrefixFrom(gw, gw.BitLen()), options))
		}
		s.host("%s", routeCommand(a.HostIf, "add", ptpHostRoute(0, to.Addr())))
	}
	return append(s, finishCommands(a, true)...)
}
