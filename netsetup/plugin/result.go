package plugin

import (
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

// resultOf is what a plugin of c's type answers for a: the host's devices first, then
// the container's, and the device of a gateway in a VLAN.
func resultOf(c *call, h *netsetup.Host, p *netsetup.Plan, a netsetup.Attachment) (cni.Result, error) {
	var r cni.Result
	for _, name := range []string{a.Bridge, a.HostIf} {
		if name == "" {
			continue
		}
		dev, err := hostInterface(h, name)
		if err != nil {
			return r, err
		}
		r.Interfaces = append(r.Interfaces, dev)
	}
	inside := cni.Interface{Name: a.IfName, MAC: a.MAC, MTU: a.MTU, Sandbox: c.netns}
	if a.Strategy == "loopback" {
		inside.MAC, inside.MTU = "00:00:00:00:00:00", 0
	}
	index := len(r.Interfaces)
	r.Interfaces = append(r.Interfaces, inside)
	if a.Port != nil && a.Port.GatewayIf != "" {
		dev, err := hostInterface(h, a.Port.GatewayIf)
		if err != nil {
			return r, err
		}
		r.Interfaces = append(r.Interfaces, dev)
	}
	for _, address := range a.Addresses {
		ip := cni.IP{Interface: &index, Address: address}
		if a.Strategy != "loopback" {
			ip.Gateway = p.SubnetGateway(address)
		}
		r.IPs = append(r.IPs, ip)
	}
	r.Routes, r.DNS = routesOf(p), a.DNS
	return r.To(c.version()), nil
}

func hostInterface(h *netsetup.Host, name string) (cni.Interface, error) {
	mac, mtu, err := h.Device(name)
	if err != nil {
		return cni.Interface{}, err
	}
	return cni.Interface{Name: name, MAC: mac.String(), MTU: mtu}, nil
}

// routesOf are the plan's, as they were asked for. isDefaultGateway's have the gateway
// that it chooses.
func routesOf(p *netsetup.Plan) (routes []cni.Route) {
	for _, r := range p.Routes {
		out := cni.Route{Dst: r.Dst, GW: r.Gateway, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Metric}
		if r.Table != 0 {
			out.Table = &r.Table
		}
		if r.Scope != 0 {
			out.Scope = &r.Scope
		}
		if !out.GW.IsValid() && p.DefaultRouteOf(r) {
			out.GW = gatewayFor(p, r.Dst.Addr())
		}
		routes = append(routes, out)
	}
	return routes
}

func gatewayFor(p *netsetup.Plan, dst netip.Addr) netip.Addr {
	for _, s := range p.Subnets {
		if s.Prefix.Addr().Is4() == dst.Is4() {
			return p.SubnetGateway(s.Prefix)
		}
	}
	return netip.Addr{}
}
