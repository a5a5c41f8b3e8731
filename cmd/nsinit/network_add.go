package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// A newNetwork is what the flags of network add ask for, in the words of podman network create.
type newNetwork struct {
	driver, ipam   string
	device         string // --interface-name: a bridge's name, or the parent
	subnets        []netip.Prefix
	gateways       []netip.Addr
	ranges         []addrRange
	internal, ipv6 bool
	options        map[string]string
	dns            []string
	dir            string
}

func networkAddVerb() verb {
	return verb{
		name: "network add", form: "[flags] NAME", min: 1, max: 1,
		brief: "write a network configuration list",
		about: `The list is written as NAME.conflist once planning it has found no fault; nothing is overwritten, and nothing of the host is touched. Without --subnet a bridge or ptp gets a private subnet that overlaps no route of the host and no other network.`,
		examples: []example{
			{"nsinit network add lan", "a bridge with a subnet of its own, masqueraded"},
			{"nsinit network add --subnet 10.5.0.0/24 --subnet fd00:5::/64 -o mtu=1400 lan", "both families as written"},
			{"nsinit network add -d macvlan -o parent=eth1 --subnet 192.168.7.0/24 --gateway 192.168.7.1 --ip-range 192.168.7.128/25 site", "a part of a site's subnet"},
		},
		setup: func(a *app) ([]group, action) {
			n := &newNetwork{driver: "bridge", options: map[string]string{}}
			return n.groups(), func(args []string) (int, error) { return 0, a.networkAdd(n, args[0]) }
		},
	}
}

func (n *newNetwork) groups() []group {
	g := configDirFlag(&n.dir)
	g.flags[0].help = "where the list is written (default " + networkConfigDir + ")"
	g.flags = append(g.flags, []flag{
		{name: "driver", short: "d", arg: "TYPE", set: text(&n.driver, checkDriver), help: "bridge, ptp, macvlan, ipvlan, vlan or dummy (default bridge)"},
		{name: "subnet", arg: "PREFIX", repeat: true, set: appendTo(&n.subnets, parsePrefix), help: "a pool of addresses, one a family or more"},
		{name: "gateway", arg: "IP", repeat: true, set: appendTo(&n.gateways, parseGateway), help: "gateway of the subnet that it lies in (default: its first address)"},
		{name: "ip-range", arg: "RANGE", repeat: true, set: appendTo(&n.ranges, parseRange), help: "the part of a subnet that addresses are given from: a prefix, or FIRST-LAST"},
		{name: "ipv6", set: toggle(&n.ipv6), help: "an IPv6 subnet, too, if none is given"},
		{name: "internal", set: toggle(&n.internal), help: "no gateway, no default route, no masquerading"},
		{name: "ipam-driver", arg: "TYPE", set: text(&n.ipam, checkIPAM), help: "host-local, none, or dhcp by its plugin (default host-local)"},
		{name: "interface-name", arg: "NAME", set: text(&n.device, netsetup.CheckIfName), help: "the bridge's name, or the parent device"},
		{name: "dns", arg: "IP", repeat: true, set: appendTo(&n.dns, parseAddr), help: "resolver of the containers"},
		{name: "opt", short: "o", arg: "KEY=VALUE", repeat: true, set: n.addOption, help: "mtu=BYTES; vlan=ID; parent=DEVICE and mode=MODE of macvlan, ipvlan and vlan"},
	}...)
	return []group{g}
}

func checkDriver(s string) error {
	switch s {
	case "bridge", "ptp", "macvlan", "ipvlan", "vlan", "dummy":
		return nil
	}
	return errors.New("unknown; bridge, ptp, macvlan, ipvlan, vlan or dummy; other lists are written by hand")
}

func checkIPAM(s string) error {
	switch s {
	case "host-local", "none", "dhcp":
		return nil
	}
	return errors.New("unknown; host-local, none or dhcp")
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, errors.New("not a subnet; as 10.5.0.0/24")
	case p != p.Masked():
		return p, fmt.Errorf("has host bits; write %s", p.Masked())
	}
	return p, nil
}

func parseGateway(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, errors.New("not an address")
	}
	return a, nil
}

// An addrRange is the first and last address of a pool.
type addrRange struct{ first, last netip.Addr }

// parseRange reads podman's two forms.
func parseRange(s string) (addrRange, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err != nil || err2 != nil || a.Is4() != b.Is4() || b.Less(a) {
			return addrRange{}, errors.New("not FIRST-LAST, two addresses of one family")
		}
		return addrRange{a, b}, nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return addrRange{}, err
	}
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return addrRange{p.Addr(), end}, nil
}

func (n *newNetwork) addOption(s string) error {
	key, value, ok := strings.Cut(s, "=")
	switch {
	case !ok || value == "":
		return errors.New("not KEY=VALUE")
	case n.options[key] != "":
		return fmt.Errorf("%s is given twice", quote(key))
	}
	switch key {
	case "mtu", "vlan":
		if _, err := strconv.Atoi(value); err != nil {
			return fmt.Errorf("%s: not a number", quote(value))
		}
	case "parent", "mode":
	default:
		return fmt.Errorf("%s: unknown; mtu, vlan, parent or mode", quote(key))
	}
	n.options[key] = value
	return nil
}

func (a *app) networkAdd(n *newNetwork, name string) error {
	if err := n.complete(a); err != nil {
		return err
	}
	plugin, err := n.plugin(name)
	if err != nil {
		return err
	}
	plugins := []map[string]any{plugin}
	if plugin["ipMasq"] == true { // --publish is served by it
		plugins = append(plugins, map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}})
	}
	list := struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}{"1.1.0", name, plugins}
	src, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	path, err := a.runtime().AddNetwork(n.dir, name, append(src, '\n'))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"name": name, "path": path})
	}
	return a.print(path + "\n")
}

// complete chooses subnets where none is given.
func (n *newNetwork) complete(a *app) error {
	private := n.driver == "bridge" || n.driver == "ptp"
	if n.ipam == "" {
		n.ipam = "host-local"
		if len(n.subnets) == 0 && !private && !n.ipv6 {
			n.ipam = "none"
		}
	}
	if n.ipam != "host-local" {
		if len(n.subnets)+len(n.gateways)+len(n.ranges) > 0 {
			return usage("--subnet, --gateway, --ip-range: not with --ipam-driver %s", n.ipam)
		}
		return nil
	}
	has6 := false
	for _, p := range n.subnets {
		has6 = has6 || p.Addr().Is6()
	}
	v4, v6 := len(n.subnets) == 0, n.ipv6 && !has6
	if !private && (v4 || v6) {
		return usage("--subnet: missing; a network of type %s has those of its link", n.driver)
	}
	if !v4 && !v6 {
		return nil
	}
	free, err := a.runtime().FreeSubnets(context.Background(), []string{n.dir}, v4, v6)
	n.subnets = append(n.subnets, free...)
	return err
}

// plugin is the list's first plugin: the same keys as the reference plugins'.
func (n *newNetwork) plugin(name string) (map[string]any, error) {
	p := map[string]any{"type": n.driver}
	switch n.driver {
	case "bridge":
		p["bridge"] = n.bridgeName(name)
		if !n.internal && n.ipam == "host-local" {
			p["isGateway"], p["isDefaultGateway"], p["ipMasq"], p["hairpinMode"] = true, true, true, true
		}
	case "ptp":
		p["ipMasq"] = !n.internal
	}
	if len(n.dns) > 0 {
		p["dns"] = map[string]any{"nameservers": n.dns}
	}
	if err := n.setOptions(p); err != nil {
		return nil, err
	}
	if n.ipam == "none" {
		return p, nil
	}
	ipam := map[string]any{"type": n.ipam}
	if n.ipam == "host-local" {
		pools, err := n.pools()
		if err != nil {
			return nil, err
		}
		ipam["ranges"] = pools
		if routes := n.defaultRoutes(); len(routes) > 0 {
			ipam["routes"] = routes
		}
	}
	p["ipam"] = ipam
	return p, nil
}

// bridgeName is as the network where that is a device's name.
func (n *newNetwork) bridgeName(name string) string {
	if n.device != "" {
		return n.device
	}
	if bridge := "br-" + name; netsetup.CheckIfName(bridge) == nil {
		return bridge
	}
	sum := fnv.New32a()
	sum.Write([]byte(name))
	return fmt.Sprintf("br-%08x", sum.Sum32())
}

// setOptions gives --opt the names that the plugin has for them.
func (n *newNetwork) setOptions(p map[string]any) error {
	parent := n.options["parent"]
	if n.driver != "bridge" && n.device != "" {
		if parent != "" && parent != n.device {
			return usage("--interface-name, --opt parent: both say the parent; give one")
		}
		parent = n.device
	}
	hasParent := n.driver == "macvlan" || n.driver == "ipvlan" || n.driver == "vlan"
	for key, value := range map[string]string{"parent": parent, "mode": n.options["mode"]} {
		switch {
		case value == "":
		case !hasParent:
			return usage("--opt %s: not with --driver %s", key, n.driver)
		case key == "parent":
			p["master"] = value
		default:
			p["mode"] = value
		}
	}
	for key, value := range map[string]string{"mtu": n.options["mtu"], "vlan": n.options["vlan"]} {
		number, _ := strconv.Atoi(value) // checked
		switch {
		case value == "":
		case key == "vlan" && n.driver == "vlan":
			p["vlanId"] = number
		case key == "vlan" && n.driver != "bridge":
			return usage("--opt vlan: not with --driver %s", n.driver)
		default:
			p[key] = number
		}
	}
	return nil
}

// pools are a range set for each subnet, with the gateway and the range that lie in it.
func (n *newNetwork) pools() (sets [][]map[string]any, err error) {
	gateways, ranges := len(n.gateways), len(n.ranges)
	for _, subnet := range n.subnets {
		pool := map[string]any{"subnet": subnet}
		for _, gw := range n.gateways {
			if subnet.Contains(gw) {
				pool["gateway"] = gw
				gateways--
			}
		}
		for _, r := range n.ranges {
			if subnet.Contains(r.first) && subnet.Contains(r.last) {
				pool["rangeStart"], pool["rangeEnd"] = r.first, r.last
				ranges--
			}
		}
		sets = append(sets, []map[string]any{pool})
	}
	if gateways != 0 || ranges != 0 {
		return nil, usage("--gateway, --ip-range: each has to lie in a subnet of its own; give that with --subnet")
	}
	return sets, nil
}

// defaultRoutes are what a bridge's isDefaultGateway does for other types.
func (n *newNetwork) defaultRoutes() (routes []map[string]string) {
	if n.internal || n.driver == "bridge" {
		return nil
	}
	var v4, v6 bool
	for _, p := range n.subnets {
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	if v4 {
		routes = append(routes, map[string]string{"dst": "0.0.0.0/0"})
	}
	if v6 {
		routes = append(routes, map[string]string{"dst": "::/0"})
	}
	return routes
}
