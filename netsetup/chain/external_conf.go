package chain

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// configOf is what a plugin finds on stdin: its own object, with the network's name and
// version, and the capabilities that it has as far as they are asked for.
func configOf(p netsetup.Plan, raw []byte) (json.RawMessage, error) {
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	delete(conf, "nsinit")
	var capabilities map[string]bool
	if given, ok := conf["capabilities"]; ok {
		if err := json.Unmarshal(given, &capabilities); err != nil {
			return nil, fmt.Errorf("capabilities: %w", err)
		}
	}
	add := map[string]any{"name": p.Network.Name, "cniVersion": p.Network.CNIVersion}
	asked := capabilityArgs(p)
	maps.DeleteFunc(asked, func(name string, _ any) bool { return !capabilities[name] })
	if len(asked) > 0 {
		add["runtimeConfig"] = asked
	}
	for key, value := range add {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		conf[key] = data
	}
	return json.Marshal(conf)
}

// capabilityArgs is what p's request asks, in the words of CNI's conventions.
func capabilityArgs(p netsetup.Plan) map[string]any {
	r, asked := p.Runtime, map[string]any{}
	if len(r.PortMappings) > 0 {
		asked["portMappings"] = portMappings(r.PortMappings)
	}
	if r.Bandwidth != (netsetup.Bandwidth{}) {
		asked["bandwidth"] = r.Bandwidth
	}
	if len(r.IPRanges) > 0 {
		asked["ipRanges"] = ipRanges(r.IPRanges)
	}
	if d := r.DNS; len(d.Nameservers)+len(d.Search)+len(d.Options) > 0 {
		asked["dns"] = map[string][]string{"servers": d.Nameservers, "searches": d.Search, "options": d.Options}
	}
	if len(r.Aliases) > 0 {
		asked["aliases"] = map[string][]string{p.Network.Name: r.Aliases}
	}
	var ips []string
	for _, ip := range p.Request.IPs {
		if ip.Bits() < 0 {
			ips = append(ips, ip.Addr().String())
			continue
		}
		ips = append(ips, ip.String())
	}
	if len(ips) > 0 {
		asked["ips"] = ips
	}
	if p.MAC != "" {
		asked["mac"] = p.MAC
	}
	if r.DeviceID != "" {
		asked["deviceID"] = r.DeviceID
	}
	return asked
}

// portMappings has one entry a port: the capability knows no ranges.
func portMappings(maps []netsetup.PortMapping) (list []netsetup.PortMapping) {
	for _, m := range maps {
		for i := range max(m.Count, 1) {
			one := m
			one.Count, one.HostPort, one.ContainerPort = 0, m.HostPort+i, m.ContainerPort+i
			list = append(list, one)
		}
	}
	return list
}

func ipRanges(sets [][]netsetup.Subnet) (list [][]map[string]string) {
	for _, set := range sets {
		var pools []map[string]string
		for _, s := range set {
			pool := map[string]string{"subnet": s.Prefix.String()}
			for key, a := range map[string]netip.Addr{"gateway": s.Gateway, "rangeStart": s.RangeStart, "rangeEnd": s.RangeEnd} {
				if a.IsValid() {
					pool[key] = a.String()
				}
			}
			pools = append(pools, pool)
		}
		list = append(list, pools)
	}
	return list
}

// argsOf writes CNI_ARGS.
func argsOf(args map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(args)) {
		pairs = append(pairs, key+"="+args[key])
	}
	return strings.Join(pairs, ";")
}
