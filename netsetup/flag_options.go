package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// optionNames returns the options, for errors.
func optionNames() []string {
	return []string{"bridge", "gateway", "interface_name", "ip", "ip6", "mac", "mtu", "route"}
}

// options reads KEY=VALUE,... and turns the request into one of a network built
// for it, if the options name a bridge or addresses with their prefix lengths.
func (r *Request) options(text string) error {
	var faults []error
	var bridge string
	keys := make(map[string]any) // of the strategy's own
	seen := make(map[string]bool)
	for option := range strings.SplitSeq(text, ",") {
		if text == "" {
			break
		}
		key, value, ok := strings.Cut(option, "=")
		switch {
		case !ok || value == "":
			faults = append(faults, fmt.Errorf("option %s: not KEY=VALUE%s; as %s", quoted(option), didYouMean(key, r.knownOptions()), formOf(r.Strategy)))
		case seen[key] && !repeats(key):
			faults = append(faults, fmt.Errorf("option %s: given twice; leave one out", quoted(key)))
		case key == "bridge" && r.Strategy == "bridge" && r.Network == nil:
			bridge = value
			faults = append(faults, optionFault(key, value, CheckIfName(value)))
		default:
			own, err := r.ownOption(key, value, keys)
			if !own {
				err = r.option(key, value)
			}
			faults = append(faults, err)
		}
		seen[key] = true
	}
	err := errors.Join(faults...)
	if err == nil {
		err = r.checkTogether()
	}
	if err != nil {
		return err
	}
	if r.isLinkWord() {
		return r.buildLink(keys)
	}
	return r.build(bridge)
}

// repeats says whether an option may be given more than once.
func repeats(key string) bool {
	return key == "ip" || key == "ip6" || key == "gateway" || key == "route"
}

// option reads one option.
func (r *Request) option(key, value string) error {
	switch key {
	case "ip", "ip6":
		return r.optionIP(key, value)
	case "gateway":
		gw, err := netip.ParseAddr(value)
		if err == nil {
			err = checkAddr(gw)
		} else {
			err = errors.New("not an address; as gateway=10.1.0.1")
		}
		r.Gateways = append(r.Gateways, gw)
		return optionFault(key, value, err)
	case "route":
		return r.optionRoute(value)
	case "mac":
		_, err := ParseMAC(value)
		r.MAC = strings.ToLower(value)
		return optionFault(key, value, err)
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu == 0 {
			return faultf(key, value, "not a number of bytes; %d to %d, as mtu=1400", minMTU, maxMTU)
		}
		r.MTU = mtu
		return optionFault(key, value, CheckMTU(mtu, false))
	case "interface_name":
		r.IfName = value
		return optionFault(key, value, CheckIfName(value))
	}
	return r.unknownOption(key)
}

func optionFault(key, value string, err error) error {
	if err == nil {
		return nil
	}
	return faultf(key, value, "%w", err)
}

func (r *Request) unknownOption(key string) error {
	names := r.knownOptions()
	switch key {
	case "bridge":
		if r.isLinkWord() {
			break
		}
		return fmt.Errorf("option bridge: the network names its bridge; write bridge:bridge=NAME for another")
	case "mode", "parent":
		return fmt.Errorf("option %s: one of macvlan's and ipvlan's; here there are %s", key, strings.Join(names, ", "))
	case "alias", "host_interface_name", "vlan", "ipv6", "port":
		return fmt.Errorf("option %s: not supported yet; there are %s", key, strings.Join(names, ", "))
	}
	return fmt.Errorf("option %s: unknown%s; there are %s", quoted(key), didYouMean(key, names), strings.Join(names, ", "))
}

// optionIP reads an address, with its prefix length or without.
func (r *Request) optionIP(key, value string) error {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		addr, addrErr := netip.ParseAddr(value)
		if addrErr != nil {
			return faultf(key, value, "not an address; as ip=10.1.0.2/24, or ip=10.1.0.2 out of the network's pool")
		}
		if addr.Zone() != "" { // a prefix would lose it
			return faultf(key, value, "%w", checkAddr(addr))
		}
		p = netip.PrefixFrom(addr, -1)
	}
	if err := CheckAddress(p); err != nil {
		return faultf(key, value, "%w", err)
	}
	if key == "ip6" && p.Addr().Is4() {
		return faultf(key, value, "not an IPv6 address; write ip=%s", value)
	}
	r.IPs = append(r.IPs, p)
	return nil
}

// optionRoute reads DESTINATION[@GATEWAY].
func (r *Request) optionRoute(value string) error {
	const form = "as route=10.9.0.0/16@10.1.0.1, or route=10.9.0.0/16 for one on the link"
	to, via, hasVia := strings.Cut(value, "@")
	dst, err := netip.ParsePrefix(to)
	switch {
	case err != nil || dst.Addr().Is4In6():
		return faultf("route", value, "not a destination; %s", form)
	case dst != dst.Masked():
		return faultf("route", value, "has host bits; write %s", dst.Masked())
	}
	route := Route{Dst: dst}
	if hasVia {
		if route.Gateway, err = netip.ParseAddr(via); err != nil {
			return faultf("route", value, "%s is no gateway; %s", quoted(via), form)
		}
		if err := checkAddr(route.Gateway); err != nil {
			return faultf("route", value, "gateway %w", err)
		}
		if route.Gateway.Is4() != dst.Addr().Is4() {
			return faultf("route", value, "gateway of the other family; %s", form)
		}
	}
	for _, have := range r.Routes {
		if have.Dst == dst {
			return faultf("route", value, "given twice; leave one out")
		}
	}
	r.Routes = append(r.Routes, route)
	return nil
}

// checkTogether finds what is wrong with the options beside each other.
func (r *Request) checkTogether() error {
	faults := append(r.checkIPs(), r.checkGateways()...)
	ipv6 := slices.ContainsFunc(r.IPs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	faults = append(faults, optionFault("mtu", strconv.Itoa(r.MTU), CheckMTU(r.MTU, ipv6)))
	return errors.Join(faults...)
}

func (r *Request) checkIPs() (faults []error) {
	for i, p := range r.IPs {
		for _, q := range r.IPs[:i] {
			if p.Addr() == q.Addr() {
				faults = append(faults, faultf("ip", p.Addr().String(), "given twice; leave one out"))
			}
			if (p.Bits() < 0) != (q.Bits() < 0) {
				faults = append(faults, faultf("ip", p.Addr().String(),
					"one with a prefix length and one without; give both one, or both none for the network's pool"))
			}
		}
	}
	return faults
}

func (r *Request) checkGateways() (faults []error) {
	for i, gw := range r.Gateways {
		for _, other := range r.Gateways[:i] {
			if gw.Is4() == other.Is4() {
				faults = append(faults, faultf("gateway", gw.String(), "a second one of its family, beside %s; leave one out", other))
			}
		}
		faults = append(faults, optionFault("gateway", gw.String(), CheckGateway(gw, r.IPs)))
	}
	return faults
}
