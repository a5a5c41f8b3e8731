package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
)

// A Result is what a plugin's ADD answers (SPEC, section 5).
type Result struct {
	CNIVersion string       `json:"cniVersion"`
	Interfaces []Interface  `json:"interfaces,omitempty"`
	IPs        []IP         `json:"ips,omitempty"`
	Routes     []Route      `json:"routes,omitempty"`
	DNS        netsetup.DNS `json:"dns"`
}

// An Interface is a device that was made, or is used.
type Interface struct {
	Name       string `json:"name"`
	MAC        string `json:"mac,omitempty"`
	MTU        int    `json:"mtu,omitempty"`     // from 1.1.0 on
	Sandbox    string `json:"sandbox,omitempty"` // the container's namespace; "" = on the host
	SocketPath string `json:"socketPath,omitempty"`
	PciID      string `json:"pciID,omitempty"`
}

// An IP is an address of one of the interfaces.
type IP struct {
	Version   string       `json:"version,omitempty"`   // "4" or "6", before 1.0.0
	Interface *int         `json:"interface,omitempty"` // index into Interfaces
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
}

// A Route is a route inside the container.
type Route struct {
	Dst      netip.Prefix `json:"dst"`
	GW       netip.Addr   `json:"gw,omitzero"`
	MTU      int          `json:"mtu,omitempty"` // this and what follows from 1.1.0 on
	AdvMSS   int          `json:"advmss,omitempty"`
	Priority int          `json:"priority,omitempty"`
	Table    *int         `json:"table,omitempty"`
	Scope    *int         `json:"scope,omitempty"`
}

// To returns r as version has it; what the version has no word for is left out.
func (r Result) To(version string) Result {
	to := Result{CNIVersion: version, DNS: r.DNS}
	for _, i := range r.Interfaces {
		if !AtLeast(version, "1.1.0") {
			i.MTU, i.SocketPath, i.PciID = 0, "", ""
		}
		to.Interfaces = append(to.Interfaces, i)
	}
	for _, ip := range r.IPs {
		ip.Version = ""
		if !AtLeast(version, "1.0.0") {
			ip.Version = "6"
			if ip.Address.Addr().Is4() {
				ip.Version = "4"
			}
		}
		to.IPs = append(to.IPs, ip)
	}
	for _, route := range r.Routes {
		if !AtLeast(version, "1.1.0") {
			route = Route{Dst: route.Dst, GW: route.GW}
		}
		to.Routes = append(to.Routes, route)
	}
	return to
}

// ParseResult reads a result of any version.
func ParseResult(data []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("result: %w", err)
	}
	for i, ip := range r.IPs {
		if ip.Interface != nil && (*ip.Interface < 0 || *ip.Interface >= len(r.Interfaces)) {
			return r, fmt.Errorf("result: ips[%d].interface: %d; there are %d interfaces", i, *ip.Interface, len(r.Interfaces))
		}
	}
	return r, nil
}

// Attachment is what r says of the interface ifName, for a policy that changes it:
// its addresses and default gateways; the host's end, if there is one, and the
// bridge that it is a port of.
func (r Result) Attachment(network, ifName string) netsetup.Attachment {
	a := netsetup.Attachment{Network: network, IfName: ifName, Configured: true, DNS: r.DNS}
	inside := -1
	var host []Interface
	for i, dev := range r.Interfaces {
		switch {
		case dev.Sandbox == "" && inside >= 0 && len(host) > 0: // behind the container's: a gateway's
		case dev.Sandbox == "":
			host = append(host, dev)
		case dev.Name == ifName:
			inside, a.MAC, a.MTU = i, dev.MAC, dev.MTU
		}
	}
	if len(host) > 0 {
		a.HostIf = host[len(host)-1].Name
	}
	if len(host) > 1 {
		a.Bridge = host[0].Name
	}
	for _, ip := range r.IPs {
		if ip.Interface != nil && inside >= 0 && *ip.Interface != inside {
			continue
		}
		a.Addresses = append(a.Addresses, ip.Address)
		if ip.Gateway.IsValid() {
			a.Gateways = append(a.Gateways, ip.Gateway)
		}
	}
	return a
}
