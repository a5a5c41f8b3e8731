package netsetup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// policyConf reads plugin, which stands behind the first in the list of p's network,
// and returns all its faults. own are the keys of the policy beside those that the
// specification gives to every plugin.
func policyConf(p Plan, plugin Plugin, own func(c *confReader) []confKey) error {
	c := &confReader{where: "network " + strconv.Quote(p.networkName())}
	if p.Network != nil && p.Network.Source != "" {
		c.where = p.Network.Source
	}
	v, err := readJSON(plugin.Raw)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.where, plugin.Type, err)
	}
	c.object(p.placeOf(plugin), &v, append(own(c), ignored(
		"type", "name", "cniVersion", "capabilities", "args", "runtimeConfig", "prevResult", "dns", "ipam", "nsinit")...))
	return errors.Join(c.faults...)
}

// placeOf says where plugin stands in its file.
func (p *Plan) placeOf(plugin Plugin) string {
	if p.Network == nil {
		return plugin.Type
	}
	i := slices.IndexFunc(p.Network.Plugins, func(other Plugin) bool {
		return len(other.Raw) > 0 && len(plugin.Raw) > 0 && &other.Raw[0] == &plugin.Raw[0]
	})
	if i < 0 {
		return plugin.Type
	}
	return "plugins[" + strconv.Itoa(i) + "]"
}

// ofArgs returns what a configuration's args.cni says, or what its runtimeConfig
// does: the ways in which whoever starts the container changes a plugin's keys.
func ofArgs(v *jsonValue) (args, runtime *jsonValue) {
	args, runtime = &jsonValue{}, &jsonValue{}
	if outer, ok := v.get("args"); ok {
		if inner, ok := outer.get("cni"); ok {
			args = inner
		}
	}
	if r, ok := v.get("runtimeConfig"); ok {
		runtime = r
	}
	return args, runtime
}

// some reads the keys of v that it knows and passes the others by: they are for
// other plugins.
func (c *confReader) some(path string, v *jsonValue, keys []confKey) {
	for _, k := range keys {
		if m, ok := v.get(k.name); ok {
			k.read(path+"."+k.name, m)
		}
	}
}

// optional reads what may be left out, where zero or false says something.
func optional[T any](read func(*T) func(string, *jsonValue), to **T) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var value T
		read(&value)(path, v)
		*to = &value
	}
}
