package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// A netConf is the configuration of the strategies that give a container an
// interface of its own: the keys of the reference plugins bridge and ptp.
type netConf struct {
	bridge       string
	isGateway    bool
	isDefault    bool
	forceAddress bool
	ipMasq       bool
	mtu          int
	promiscuous  bool
	dad          bool
	dns          DNS
	ipam         ipamConf
	asked        askedConf
}

// A confReader reads a plugin's object and collects its faults.
type confReader struct {
	where  string // the file
	faults []error
}

// A confKey is one key that an object may have; read gets its place and its value.
type confKey struct {
	name string
	read func(path string, v *jsonValue)
}

func (c *confReader) faultf(path, value, format string, args ...any) {
	c.faults = append(c.faults, faultf(c.where+": "+path, value, format, args...))
}

// kind tells of a value of another kind.
func (c *confReader) kind(path string, v *jsonValue, want string) {
	c.faults = append(c.faults, fmt.Errorf("%s: %s: %s; %s is wanted", c.where, path, v.what(), want))
}

// object reads v's members by their keys. A key that isn't among keys is a fault:
// a word that is ignored silently is a network that isn't what was asked for.
func (c *confReader) object(path string, v *jsonValue, keys []confKey) {
	if v.kind != '{' {
		c.kind(path, v, "an object")
		return
	}
	for i := range v.members {
		m := &v.members[i]
		place := m.key
		if path != "" {
			place = path + "." + m.key
		}
		read := c.unknown(m.key, keys)
		for _, k := range keys {
			if k.name == m.key {
				read = k.read
			}
		}
		read(place, &m.value)
	}
}

func (c *confReader) unknown(key string, keys []confKey) func(string, *jsonValue) {
	return func(path string, _ *jsonValue) {
		var names []string
		for _, k := range keys {
			names = append(names, k.name)
		}
		c.faults = append(c.faults, fmt.Errorf("%s: %s: unknown key%s", c.where, path, didYouMean(key, names)))
	}
}

// ignored takes the keys that another room reads or that say nothing here.
func ignored(names ...string) (keys []confKey) {
	for _, name := range names {
		keys = append(keys, confKey{name, func(string, *jsonValue) {}})
	}
	return keys
}

// asksNothing says whether v is what a key that was left out stands for.
func (v *jsonValue) asksNothing() bool {
	switch v.kind {
	case 'f', 'n':
		return true
	case '0':
		return v.text == "0"
	case '{':
		return len(v.members) == 0
	case '[':
		return len(v.items) == 0
	}
	return v.text == "" && v.kind == '"'
}

// The readers below return functions for a confKey that store what they read.

func (c *confReader) boolean(to *bool) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != 't' && v.kind != 'f' {
			c.kind(path, v, "true or false")
			return
		}
		*to = v.kind == 't'
	}
}

func (c *confReader) text(to *string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		*to = v.text
	}
}

func (c *confReader) texts(to *[]string) func(string, *jsonValue) {
	return c.list(func(path string, v *jsonValue) {
		var s string
		c.text(&s)(path, v)
		*to = append(*to, s)
	})
}

func (c *confReader) number(to *int) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '0' {
			c.kind(path, v, "a number")
			return
		}
		n, err := strconv.Atoi(v.text)
		if err != nil || n < 0 {
			c.faultf(path, v.text, "a whole number from 0 is wanted")
			return
		}
		*to = n
	}
}

func (c *confReader) addr(to *netip.Addr) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		a, err := netip.ParseAddr(v.text)
		if err != nil || a.Zone() != "" {
			c.faultf(path, v.text, "an IP address is wanted, as 10.1.0.1 or fd00:1::1")
			return
		}
		*to = a.Unmap()
	}
}

func (c *confReader) prefix(to *netip.Prefix) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		p, err := netip.ParsePrefix(v.text)
		if err != nil || p.Addr().Is4In6() {
			c.faultf(path, v.text, "an address with its prefix length is wanted, as 10.1.0.0/24 or fd00:1::/64")
			return
		}
		*to = p
	}
}

func (c *confReader) list(read func(string, *jsonValue)) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind == 'n' {
			return
		}
		if v.kind != '[' {
			c.kind(path, v, "a list")
			return
		}
		for i := range v.items {
			read(path+"["+strconv.Itoa(i)+"]", &v.items[i])
		}
	}
}

func (c *confReader) dns(to *DNS) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.object(path, v, []confKey{
			{"nameservers", c.texts(&to.Nameservers)},
			{"domain", c.text(&to.Domain)},
			{"search", c.texts(&to.Search)},
			{"options", c.texts(&to.Options)},
		})
	}
}

// routes reads CNI's routes. A gateway that is left out is the network's.
func (c *confReader) routes(to *[]placedRoute) func(string, *jsonValue) {
	return c.list(func(path string, v *jsonValue) {
		r := placedRoute{place: c.where + ": " + path}
		c.object(path, v, []confKey{
			{"dst", c.prefix(&r.Dst)},
			{"gw", c.addr(&r.Gateway)},
			{"mtu", c.number(&r.MTU)},
			{"advmss", c.number(&r.AdvMSS)},
			{"priority", c.number(&r.Metric)},
			{"table", c.number(&r.Table)},
			{"scope", c.number(&r.Scope)},
		})
		if _, ok := v.get("dst"); !ok && v.kind == '{' {
			c.faults = append(c.faults, fmt.Errorf("%s: %s.dst: missing; as 10.2.0.0/16", c.where, path))
			return
		}
		if r.Gateway.IsUnspecified() { // none, not even the network's
			r.Gateway = netip.Addr{}
			r.Scope = max(r.Scope, unix.RT_SCOPE_LINK)
		}
		if r.Dst.IsValid() { // else its fault is told
			*to = append(*to, r)
		}
	})
}

// confOf reads the configuration of r's network. own are the keys of the strategy
// beside those that all have.
func confOf(r Request, own func(*confReader, *netConf) []confKey) (netConf, error) {
	var conf netConf
	if r.Network == nil || len(r.Network.Plugins) == 0 {
		return conf, fmt.Errorf("%s: no network given", r.where())
	}
	c := &confReader{where: r.fileName()}
	v, err := readJSON(r.Network.Plugins[0].Raw)
	if err != nil {
		return conf, errors.Join(append(c.faults, fmt.Errorf("%s: %w", c.where, err))...)
	}
	keys := append(own(c, &conf), []confKey{
		{"mtu", c.number(&conf.mtu)},
		{"ipMasq", c.boolean(&conf.ipMasq)},
		{"ipMasqBackend", c.masqBackend},
		{"dns", c.dns(&conf.dns)},
		{"ipam", c.ipam(&conf.ipam)},
		{"capabilities", c.capabilities},
		{"args", c.args(&conf.asked)},
		{"runtimeConfig", c.runtimeConfig(&conf.asked)},
		{"nsinit", c.nsinitKey},
	}...)
	keys = append(keys, ignored("type", "name", "cniVersion", "prevResult")...)
	c.object("plugins[0]", &v, keys)
	c.environment(r.Runtime.Args, &conf.asked)
	conf.ipam.versionLimit(c, r.Network.CNIVersion)
	return conf, errors.Join(c.faults...)
}

// masqBackend takes the plugins' words. Both mean nsinit's own table in nftables:
// what a packet meets is the same, and nsinit runs no iptables.
func (c *confReader) masqBackend(path string, v *jsonValue) {
	if v.kind != '"' {
		c.kind(path, v, "a string")
	} else if v.text != "nftables" && v.text != "iptables" {
		c.faultf(path, v.text, `unknown; "nftables" or "iptables"%s`, didYouMean(v.text, []string{"nftables", "iptables"}))
	}
}

// nsinitKey is nsinit's own key: who runs the plugin.
func (c *confReader) nsinitKey(path string, v *jsonValue) {
	switch v.text {
	case "native":
	case "exec":
		c.faultf(path, v.text, `running the real plugin is not supported yet; "native", or leave it out`)
	default:
		c.faultf(path, v.text, `"native" is wanted`)
	}
}
