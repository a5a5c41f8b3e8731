package netsetup

import (
	"fmt"
	"net/netip"
	"path/filepath"
)

// An ipamConf is what stands under "ipam".
type ipamConf struct {
	kind       string // "host-local", "static"; "" = none
	sets       []poolSet
	addresses  []netip.Prefix // static
	gateways   []netip.Addr   // static: of addresses, with the same index; zero = none
	listed     bool           // static: the file has addresses, though perhaps with faults
	routes     []placedRoute
	dataDir    string
	resolvConf string
	dns        DNS
}

// A poolSet gives one address, from the first of its pools that has one left.
type poolSet []placedPool

type placedPool struct {
	Subnet
	place string // where it was written, for errors
}

type placedRoute struct {
	Route
	place string
}

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
		default: // a program, which reads its keys itself
			c.text(&to.kind)(path+".type", kind)
		}
	}
}

// hostLocal reads pools: in "ranges", or one of the old form in the object itself.
// There may be none, if the container brings its own (ipRanges): see checkPools.
func (c *confReader) hostLocal(path string, v *jsonValue, to *ipamConf, keys []confKey) {
	old := placedPool{place: c.where + ": " + path}
	keys = append(keys, c.pool(&old.Subnet)...)
	keys = append(keys, confKey{"dataDir", c.absolute(&to.dataDir)}, confKey{"resolvConf", c.absolute(&to.resolvConf)},
		confKey{"ranges", c.list(c.rangeSet(&to.sets))})
	c.object(path, v, keys)
	if _, ok := v.get("subnet"); ok {
		to.sets = append([]poolSet{{old}}, to.sets...)
		return
	}
	for _, key := range []string{"rangeStart", "rangeEnd", "gateway"} {
		if _, ok := v.get(key); ok {
			c.faults = append(c.faults, fmt.Errorf("%s: %s.%s: without a subnet; add \"subnet\", or put it into the pool of ranges that it is meant for", c.where, path, key))
		}
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

// rangeSet reads one set.
func (c *confReader) rangeSet(to *[]poolSet) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var set poolSet
		before := len(c.faults)
		c.list(func(path string, v *jsonValue) {
			p := placedPool{place: c.where + ": " + path}
			c.object(path, v, c.pool(&p.Subnet))
			if _, ok := v.get("subnet"); !ok && v.kind == '{' {
				c.faults = append(c.faults, fmt.Errorf("%s.subnet: missing; as 10.1.0.0/24", p.place))
			}
			set = append(set, p)
		})(path, v)
		if len(set) == 0 && len(c.faults) == before {
			c.faults = append(c.faults, fmt.Errorf("%s: %s: no pool in this set; [{\"subnet\": \"10.1.0.0/24\"}] is one", c.where, path))
		}
		*to = append(*to, set)
	}
}

// static reads addresses as written.
func (c *confReader) static(path string, v *jsonValue, to *ipamConf, keys []confKey) {
	keys = append(keys, confKey{"dns", c.dns(&to.dns)}, confKey{"addresses", c.list(func(path string, v *jsonValue) {
		var a netip.Prefix
		var gw netip.Addr
		var version string
		to.listed = true
		c.object(path, v, []confKey{
			{"address", c.prefix(&a)}, {"gateway", c.addr(&gw)}, {"version", c.text(&version)},
		})
		if !a.IsValid() {
			if _, ok := v.get("address"); !ok && v.kind == '{' {
				c.faults = append(c.faults, fmt.Errorf("%s: %s.address: missing; as 10.1.0.2/24", c.where, path))
			}
			return
		}
		to.addresses = append(to.addresses, a)
		to.gateways = append(to.gateways, gw)
	})})
	c.object(path, v, keys)
}

// versionLimit refuses what results of CNI before 0.3.0 have no place for: a second
// address of a family.
func (conf *ipamConf) versionLimit(c *confReader, version string) {
	if version != "0.1.0" && version != "0.2.0" {
		return
	}
	var v4, v6 int
	count := func(a netip.Addr) {
		if a.Is4() {
			v4++
		} else {
			v6++
		}
	}
	for _, set := range conf.sets {
		if len(set) > 0 && set[0].Prefix.IsValid() {
			count(set[0].Prefix.Addr())
		}
	}
	for _, a := range conf.addresses {
		count(a.Addr())
	}
	if v4 > 1 || v6 > 1 {
		c.faultf("cniVersion", version, "has one address a family, and the network gives more; \"0.3.1\" or later")
	}
}

// absolute reads a path of the host.
func (c *confReader) absolute(to *string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.text(to)(path, v)
		if v.kind == '"' && v.text != "" && !filepath.IsAbs(v.text) {
			c.faultf(path, v.text, "not an absolute path; write it from / on")
		}
	}
}
