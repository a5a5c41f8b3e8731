package netsetup

import (
	"fmt"
	"net/netip"
	"path/filepath"
)

// ipam reads what stands under "ipam": how the container gets its addresses.
func (c *confReader) ipam(to *ipamConf) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind == 'n' || v.kind == '{' && len(v.members) == 0 {
			return // no addresses: a bare link
		}
		if v.kind != '{' {
			c.kind(path, v, "an object")
			return
		}
		kind, ok := v.get("type")
		if !ok {
			c.faults = append(c.faults, fmt.Errorf(`%s: %s.type: missing; "host-local" or "static"`, c.where, path))
			return
		}
		keys := []confKey{{"type", c.text(&to.kind)}, {"routes", c.routes(&to.routes)}}
		keys = append(keys, ignored("name")...)
		switch kind.text {
		case "host-local":
			c.hostLocal(path, v, to, keys)
		case "static":
			c.static(path, v, to, keys)
		case "dhcp":
			c.faultf(path+".type", kind.text, "not supported yet; host-local or static")
		default:
			c.faultf(path+".type", kind.text, `unknown; "host-local" or "static"%s`,
				didYouMean(kind.text, []string{"host-local", "static"}))
		}
	}
}

// hostLocal reads pools: in "ranges", or one of the old form in the object itself.
func (c *confReader) hostLocal(path string, v *jsonValue, to *ipamConf, keys []confKey) {
	var old Subnet
	keys = append(keys, c.pool(&old)...)
	keys = append(keys, confKey{"dataDir", c.absolute(&to.dataDir)}, confKey{"resolvConf", c.absolute(&to.resolvConf)},
		confKey{"ranges", c.list(c.rangeSet(&to.ranges))})
	c.object(path, v, keys)
	if _, ok := v.get("subnet"); ok {
		c.checkPool(path, old)
		to.ranges = append([][]Subnet{{old}}, to.ranges...)
	} else if len(to.ranges) == 0 {
		c.faults = append(c.faults, fmt.Errorf("%s: %s.ranges: missing; [[{\"subnet\": \"10.1.0.0/24\"}]] is one", c.where, path))
	}
}

func (c *confReader) pool(to *Subnet) []confKey {
	return []confKey{
		{"subnet", c.prefix(&to.Prefix)},
		{"gateway", c.addr(&to.Gateway)},
		{"rangeStart", c.addr(&to.RangeStart)},
		{"rangeEnd", c.addr(&to.RangeEnd)},
	}
}

// rangeSet reads one set: the container gets one address of it.
func (c *confReader) rangeSet(to *[][]Subnet) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var set []Subnet
		c.list(func(path string, v *jsonValue) {
			var s Subnet
			c.object(path, v, c.pool(&s))
			c.checkPool(path, s)
			set = append(set, s)
		})(path, v)
		switch {
		case len(set) == 0:
			c.faults = append(c.faults, fmt.Errorf("%s: %s: no pool in this set", c.where, path))
		case len(set) > 1:
			c.faults = append(c.faults, fmt.Errorf(
				"%s: %s: several pools in one set are not supported yet; one pool a set gives the container an address of each", c.where, path))
		default:
			*to = append(*to, set)
		}
	}
}

func (c *confReader) checkPool(path string, s Subnet) {
	if !s.Prefix.IsValid() {
		return // missing or no prefix: told, or told here
	}
	if err := CheckSubnet(s); err != nil {
		c.faultf(path+".subnet", s.Prefix.String(), "%w", err)
	}
}

// static reads addresses as written.
func (c *confReader) static(path string, v *jsonValue, to *ipamConf, keys []confKey) {
	keys = append(keys, confKey{"dns", c.dns(&to.dns)}, confKey{"addresses", c.list(func(path string, v *jsonValue) {
		var a netip.Prefix
		var gw netip.Addr
		var version string
		c.object(path, v, []confKey{
			{"address", c.prefix(&a)}, {"gateway", c.addr(&gw)}, {"version", c.text(&version)},
		})
		if !a.IsValid() {
			if _, ok := v.get("address"); !ok {
				c.faults = append(c.faults, fmt.Errorf("%s: %s.address: missing", c.where, path))
			}
			return
		}
		to.addresses = append(to.addresses, a)
		to.gateways = append(to.gateways, gw)
	})})
	c.object(path, v, keys)
}

// absolute reads a path of the host.
func (c *confReader) absolute(to *string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.text(to)(path, v)
		if v.kind == '"' && v.text != "" && !filepath.IsAbs(v.text) {
			c.faultf(path, v.text, "not an absolute path")
		}
	}
}
