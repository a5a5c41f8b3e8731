package netsetup

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// An askedConf is what one container asks of the network, as CNI has it: in a
// plugin's own object, where a runtime has put it beside the network's keys, and in
// CNI_ARGS. A Request's own fields say the same, and win.
type askedConf struct {
	ips      []placedPrefix // runtimeConfig.ips
	args     []placedPrefix // args.cni.ips
	env      []placedPrefix // IP of CNI_ARGS
	gateways []netip.Addr   // GATEWAY of CNI_ARGS
	mac      string         // of runtimeConfig, else args.cni, else CNI_ARGS
	macPlace string         // where it was written
	ranges   []poolSet      // runtimeConfig.ipRanges
	dns      DNS            // runtimeConfig.dns
	deviceID string         // runtimeConfig.deviceID
}

// A placedPrefix is an address with the place where it was written.
type placedPrefix struct {
	netip.Prefix // Bits() < 0: without a length
	place        string
}

// places says where each address was asked for.
func (conf askedConf) places() map[netip.Addr]string {
	places := make(map[netip.Addr]string)
	for _, p := range slices.Concat(conf.env, conf.args, conf.ips) {
		places[p.Addr()] = p.place
	}
	return places
}

// capabilities says what a runtime may pass in. nsinit passes what it has to any
// plugin of its own; what it can't have been asked for, as infinibandGUID, is nothing.
func (c *confReader) capabilities(path string, v *jsonValue) {
	var keys []confKey
	for _, name := range []string{
		"ips", "mac", "portMappings", "bandwidth", "ipRanges", "dns", "aliases", "infinibandGUID", "deviceID", "cgroupPath",
	} {
		keys = append(keys, confKey{name, c.boolean(new(bool))})
	}
	c.object(path, v, keys)
}

// args reads what is for everybody: {"cni": {...}}. What isn't nsinit's is left to
// those whom it concerns.
func (c *confReader) args(to *askedConf) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		cni, ok := v.get("cni")
		switch {
		case v.kind != '{':
			c.kind(path, v, "an object")
		case ok && cni.kind != '{':
			c.kind(path+".cni", cni, "an object")
		case ok:
			var mac string
			c.known(path+".cni", cni, []confKey{{"ips", c.ips(&to.args)}, {"mac", c.text(&mac)}})
			if to.mac == "" {
				to.mac, to.macPlace = mac, c.where+": "+path+".cni.mac"
			}
		}
	}
}

// runtimeConfig reads the capabilities' arguments as far as they are for the first
// plugin; portMappings and others are for those behind it.
func (c *confReader) runtimeConfig(to *askedConf) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '{' {
			c.kind(path, v, "an object")
			return
		}
		var mac string
		c.known(path, v, []confKey{
			{"ips", c.ips(&to.ips)},
			{"mac", c.text(&mac)},
			{"ipRanges", c.list(c.rangeSet(&to.ranges))},
			{"dns", c.runtimeDNS(&to.dns)},
			{"deviceID", c.text(&to.deviceID)},
		})
		if mac != "" {
			to.mac, to.macPlace = mac, c.where+": "+path+".mac"
		}
	}
}

// runtimeDNS reads the capability, whose words differ from those of "dns".
func (c *confReader) runtimeDNS(to *DNS) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.object(path, v, []confKey{
			{"servers", c.texts(&to.Nameservers)},
			{"searches", c.texts(&to.Search)},
			{"options", c.texts(&to.Options)},
		})
	}
}

// known reads the members of v that keys has, and passes the others over.
func (c *confReader) known(path string, v *jsonValue, keys []confKey) {
	for _, k := range keys {
		if m, ok := v.get(k.name); ok {
			k.read(path+"."+k.name, m)
		}
	}
}

// ips reads addresses with or without a prefix length.
func (c *confReader) ips(to *[]placedPrefix) func(string, *jsonValue) {
	return c.list(func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		c.ip(c.where+": "+path, v.text, to)
	})
}

func (c *confReader) ip(place, text string, to *[]placedPrefix) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		var a netip.Addr
		a, err = netip.ParseAddr(text)
		p = netip.PrefixFrom(a.Unmap(), -1)
	}
	if err != nil || p.Addr().Zone() != "" || p.Addr().Is4In6() {
		c.faults = append(c.faults, faultf(place, text, "an address is wanted, as 10.1.0.2/24"))
		return
	}
	*to = append(*to, placedPrefix{p, place})
}

// environment reads CNI_ARGS: IP and GATEWAY, each a list with commas, and MAC. As in
// CNI's library, a further key is a fault unless IgnoreUnknown says otherwise.
func (c *confReader) environment(args map[string]string, to *askedConf) {
	for _, key := range slices.Sorted(maps.Keys(args)) {
		value, place := args[key], "CNI_ARGS: "+key
		switch key {
		case "IP":
			for part := range strings.SplitSeq(value, ",") {
				c.ip(place, strings.TrimSpace(part), &to.env)
			}
		case "GATEWAY":
			for part := range strings.SplitSeq(value, ",") {
				gw, err := netip.ParseAddr(strings.TrimSpace(part))
				if err != nil {
					c.faults = append(c.faults, faultf(place, part, "an address is wanted, as 10.1.0.1"))
					continue
				}
				to.gateways = append(to.gateways, gw.Unmap())
			}
		case "MAC":
			if to.mac == "" {
				to.mac, to.macPlace = value, place
			}
		case "IgnoreUnknown":
		default:
			if ignore := args["IgnoreUnknown"]; ignore != "1" && !strings.EqualFold(ignore, "true") {
				c.faults = append(c.faults, fmt.Errorf("%s: unknown key; leave it out, or add IgnoreUnknown=1", place))
			}
		}
	}
}
