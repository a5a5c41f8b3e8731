package ipam

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
	"golang.org/x/sys/unix"
)

// pools are the subnets of a default network, comparable. A zero one is not chosen yet.
type pools struct{ v4, v6 netip.Prefix }

func (p pools) has(subnet netip.Prefix) bool { return subnet == p.v4 || subnet == p.v6 }

// bits4 makes a pool of 4,093 addresses: a bridge has 1,023 ports, and a smaller
// subnet is less likely to meet one that the host joins later.
const bits4 = 20

// fill chooses the subnets that p lacks of the families wanted.
func (p pools) fill(free func(netip.Prefix) bool, v4, v6 bool) (pools, error) {
	for c := range candidates() {
		if !v4 || p.v4.IsValid() {
			break
		}
		if free(c) {
			p.v4 = c
		}
	}
	for i := 0; v6 && !p.v6.IsValid() && i < 100; i++ {
		if c := randomULA(); free(c) {
			p.v6 = c
		}
	}
	if v4 != p.v4.IsValid() || v6 != p.v6.IsValid() {
		return p, fmt.Errorf("every private subnet overlaps a route of the host; name a subnet in a network file, and give that to --network")
	}
	return p, nil
}

func usedBy(p netip.Prefix, routes []hostRoute, bridge int) bool {
	_, used := inTheWay(p, routes, bridge)
	return used
}

// candidates returns the private IPv4 subnets (RFC 1918) in the order of trying:
// first those that other tools and sites seldom take.
func candidates() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		span := func(a byte, from, to int) bool {
			for b := from; b <= to; b++ {
				for c := 0; c < 256; c += 1 << (24 - bits4) {
					if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{a, byte(b), byte(c), 0}), bits4)) {
						return false
					}
				}
			}
			return true
		}
		_ = span(10, 200, 243) && span(10, 100, 199) && span(10, 1, 99) && span(10, 244, 254) &&
			span(172, 16, 31) && span(192, 168, 168)
	}
}

// randomULA returns a unique local /64: 40 random bits behind fd00::/8 (RFC 4193).
func randomULA() netip.Prefix {
	var a [16]byte
	a[0] = 0xfd
	// crypto/rand would do it at the price of a dozen package inits in every start. getrandom(2) fails on no kernel
	// of ours.
	_, _ = unix.Getrandom(a[1:6], 0)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// The stored form of a default network: a CNI network configuration list, for
// other tools to read.
type (
	netList struct {
		CNIVersion string      `json:"cniVersion"`
		Name       string      `json:"name"`
		OnlyThese  bool        `json:"loadOnlyInlinedPlugins"`
		Plugins    []netPlugin `json:"plugins"`
	}
	netPlugin struct {
		Type             string  `json:"type"`
		Bridge           string  `json:"bridge,omitempty"`
		IsGateway        bool    `json:"isGateway,omitempty"`
		IsDefaultGateway bool    `json:"isDefaultGateway,omitempty"`
		IPMasq           bool    `json:"ipMasq"`
		IPAM             netIPAM `json:"ipam"`
	}
	netIPAM struct {
		Type   string       `json:"type"`
		Ranges [][]netRange `json:"ranges"`
		Routes []netRoute   `json:"routes,omitempty"`
	}
	netRange struct {
		Subnet netip.Prefix `json:"subnet"`
	}
	netRoute struct {
		Dst netip.Prefix `json:"dst"`
	}
)

// list returns the network with the subnets p.
func (d *defaultNetwork) list(p pools) netList {
	plugin := netPlugin{Type: d.strategy, IPMasq: true, IPAM: netIPAM{Type: "host-local"}}
	if d.bridge != "" {
		plugin.Bridge, plugin.IsGateway, plugin.IsDefaultGateway = d.bridge, true, true
	}
	for _, subnet := range []netip.Prefix{p.v4, p.v6} {
		if !subnet.IsValid() {
			continue
		}
		plugin.IPAM.Ranges = append(plugin.IPAM.Ranges, []netRange{{subnet}})
		if d.bridge == "" { // a bridge's default routes come of isDefaultGateway
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if subnet.Addr().Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			plugin.IPAM.Routes = append(plugin.IPAM.Routes, netRoute{all})
		}
	}
	return netList{CNIVersion: "1.1.0", Name: d.name, OnlyThese: true, Plugins: []netPlugin{plugin}}
}

// poolsOf reads the subnets of a remembered network.
func poolsOf(n *netsetup.Network) (pools, error) {
	var p pools
	var plugin netPlugin
	if err := json.Unmarshal(n.Plugins[0].Raw, &plugin); err != nil {
		return p, fmt.Errorf("%s: %w", n.Source, err)
	}
	for _, set := range plugin.IPAM.Ranges {
		for _, r := range set {
			if r.Subnet.Addr().Is4() {
				p.v4 = r.Subnet.Masked()
			} else {
				p.v6 = r.Subnet.Masked()
			}
		}
	}
	return p, nil
}
