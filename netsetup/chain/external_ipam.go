package chain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
	"github.com/nsinit/nsinit/netsetup/ipam"
)

// dhcp is the one address plugin that talks through the interface itself.
const dhcp = "dhcp"

// planIPAM refuses an address plugin that isn't there, or that the network can't have.
func planIPAM(p netsetup.Plan) error {
	if netsetup.NativeIPAM(p.IPAM) {
		return nil
	}
	err := mustFind(p.Request, "plugins[0].ipam.type", p.IPAM, []string{"host-local", "static"})
	if p.IPAM == dhcp && p.Gateway {
		err = errors.Join(err, fmt.Errorf("%s: plugins[0].ipam.type: %q: a network whose gateway is the host can't ask a server behind it for addresses; leave isGateway out, or take host-local",
			p.Network.Source, dhcp))
	}
	return err
}

// connect makes the interface of p, with its addresses. p gets what an address plugin says.
func connect(ctx context.Context, h *netsetup.Host, t *tracer, target *netsetup.NetNS, p *netsetup.Plan, record netsetup.Recorder) (netsetup.Attachment, error) {
	if p.IPAM == dhcp {
		return connectFirst(ctx, h, t, target, p, record)
	}
	var addrs []netip.Prefix
	var gateways []netip.Addr
	var err error
	if netsetup.NativeIPAM(p.IPAM) {
		addrs, gateways, err = ipam.Allocate(ctx, *p, p.Owner, record)
	} else {
		addrs, gateways, err = runIPAM(ctx, h, target, p, record)
	}
	if err != nil {
		return netsetup.Attachment{}, err
	}
	t.step("addresses", nil)
	return netsetup.Attach(ctx, h, target, *p, addrs, gateways, record)
}

// connectFirst makes the interface and brings it up before it asks for addresses.
func connectFirst(ctx context.Context, h *netsetup.Host, t *tracer, target *netsetup.NetNS, p *netsetup.Plan, record netsetup.Recorder) (netsetup.Attachment, error) {
	asked := p.IPs
	a, err := netsetup.Attach(ctx, h, target, *p, nil, nil, record)
	if err == nil {
		err = netsetup.ConfigureIn(target, a)
	}
	if err != nil {
		return a, err
	}
	p.IPs = asked
	addrs, gateways, err := runIPAM(ctx, h, target, p, record)
	if err != nil {
		return a, err
	}
	t.step("addresses", nil)
	return a, p.Readdress(&a, addrs, gateways)
}

// runIPAM runs the address plugin with the configuration of the network's first plugin.
func runIPAM(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p *netsetup.Plan, record netsetup.Recorder) ([]netip.Prefix, []netip.Addr, error) {
	res, err := job{*p, p.IPAM, p.Network.Plugins[0].Raw, target, record, h.Warn}.add(ctx, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("ipam plugin %s: %w", p.IPAM, err)
	}
	var addrs []netip.Prefix
	var own, gateways []netip.Addr
	for _, ip := range res.IPs {
		if !ip.Address.IsValid() {
			return nil, nil, fmt.Errorf("ipam plugin %s: gives no address", p.IPAM)
		}
		addrs, own = append(addrs, ip.Address), append(own, ip.Gateway)
		if ip.Gateway.IsValid() {
			gateways = append(gateways, ip.Gateway)
		}
	}
	if len(addrs) == 0 {
		return nil, nil, fmt.Errorf("ipam plugin %s: gives no address", p.IPAM)
	}
	var routes []netsetup.Route
	for _, r := range res.Routes {
		routes = append(routes, routeOf(r, r.GW))
	}
	p.TakeAddresses(addrs, own, routes, res.DNS)
	return addrs, gateways, nil
}

// resultOf is what the plugins before say of a, for one that is run behind them.
func resultOf(p netsetup.Plan, a netsetup.Attachment, target *netsetup.NetNS) (cni.Result, error) {
	sandbox, _, err := sandboxOf(target)
	if err != nil {
		return cni.Result{}, err
	}
	if data, ok := cachedResult(netsetup.Object{Network: p.Network.Name, Owner: p.Owner, IfName: p.IfName}); ok {
		return cni.ParseResult(data)
	}
	res := cni.Result{CNIVersion: p.Network.CNIVersion, DNS: a.DNS}
	for _, name := range []string{a.Bridge, a.HostIf} {
		if name != "" {
			res.Interfaces = append(res.Interfaces, cni.Interface{Name: name})
		}
	}
	inside := len(res.Interfaces)
	res.Interfaces = append(res.Interfaces, cni.Interface{Name: a.IfName, MAC: a.MAC, MTU: a.MTU, Sandbox: sandbox})
	for _, addr := range a.Addresses {
		ip := cni.IP{Interface: &inside, Address: addr}
		for _, gw := range a.Gateways {
			if addr.Contains(gw) {
				ip.Gateway = gw
			}
		}
		res.IPs = append(res.IPs, ip)
	}
	for _, gw := range a.Gateways {
		res.Routes = append(res.Routes, cni.Route{Dst: netip.PrefixFrom(unspecified(gw), 0), GW: gw})
	}
	for _, r := range a.Routes {
		res.Routes = append(res.Routes, cni.Route{Dst: r.Dst, GW: r.Gateway, MTU: r.MTU, Priority: r.Metric, AdvMSS: r.AdvMSS})
	}
	return res, nil
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
