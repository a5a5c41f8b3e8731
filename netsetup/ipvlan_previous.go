package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
)

// A previous is what ipvlan takes of the result of the plugin before it in a list
// (CNI's prevResult): the device to stand on, and addresses that it didn't use.
type previous struct {
	where      string
	interfaces []string // their names
	ips        []netip.Prefix
	gateways   []netip.Addr // of ips; zero = none
	routes     []Route
}

// previousOf reads the prevResult in the configuration of r's network, false if it
// has none. A value of another form than CNI's is passed over: libcni wrote it.
func previousOf(r Request) (*previous, bool) {
	if r.Network == nil || len(r.Network.Plugins) == 0 {
		return nil, false
	}
	v, err := readJSON(r.Network.Plugins[0].Raw)
	if err != nil {
		return nil, false
	}
	result, ok := v.get("prevResult")
	if !ok || result.kind != '{' {
		return nil, false
	}
	b := &previous{where: r.Network.Source + ": plugins[0].prevResult"}
	for _, device := range itemsOf(result, "interfaces") {
		b.interfaces = append(b.interfaces, textOf(&device, "name"))
	}
	for _, ip := range itemsOf(result, "ips") {
		if a, err := netip.ParsePrefix(textOf(&ip, "address")); err == nil {
			b.ips, b.gateways = append(b.ips, a), append(b.gateways, addrOf(&ip, "gateway"))
		}
	}
	for _, route := range itemsOf(result, "routes") {
		if dst, err := netip.ParsePrefix(textOf(&route, "dst")); err == nil {
			b.routes = append(b.routes, Route{Dst: dst, Gateway: addrOf(&route, "gw")})
		}
	}
	return b, true
}

func itemsOf(v *jsonValue, key string) []jsonValue {
	m, _ := v.get(key)
	return listItems(m)
}

func textOf(v *jsonValue, key string) string {
	if m, ok := v.get(key); ok && m.kind == '"' {
		return m.text
	}
	return ""
}

// addrOf returns the address at key, zero if there is none.
func addrOf(v *jsonValue, key string) netip.Addr {
	a, _ := netip.ParseAddr(textOf(v, key))
	return a.Unmap().WithZone("")
}

// take puts what b has into the request where the configuration says nothing.
func (b *previous) take(r *Request, conf *netConf, own *sublinkConf) error {
	var faults []error
	if own.master == "" {
		if len(b.interfaces) == 1 && b.interfaces[0] != "" {
			own.master = b.interfaces[0]
		} else {
			faults = append(faults, fmt.Errorf("%s.interfaces: %d; exactly one with a name can be the master, or name it in master", b.where, len(b.interfaces)))
		}
	}
	if conf.ipam.kind == "" && len(b.ips) > 0 {
		conf.ipam.kind = "static"
		r.IPs = b.ips
		r.Routes = b.routesVia()
	}
	return errors.Join(faults...)
}

// routesVia are the routes, those without a gateway by the first of their family.
func (b *previous) routesVia() (routes []Route) {
	for _, r := range b.routes {
		for _, gw := range b.gateways {
			if !r.Gateway.IsValid() && gw.IsValid() && gw.Is4() == r.Dst.Addr().Is4() {
				r.Gateway = gw
			}
		}
		routes = append(routes, r)
	}
	return routes
}
