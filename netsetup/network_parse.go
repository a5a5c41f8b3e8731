package netsetup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A parsedNetwork is a network with what only its loading needs.
type parsedNetwork struct {
	Network
	inlinedOnly bool // the plugins of the folder beside it don't count
}

// cniVersions returns the versions of the CNI specification that there are.
func cniVersions() []string {
	return []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}
}

// The keys that the specification gives to a list and to each plugin. A key in
// another case is refused: encoding/json, in other tools, would take it.
func listKeys() []string {
	return []string{
		"cniVersion", "cniVersions", "name", "disableCheck", "disableGC",
		"loadOnlyInlinedPlugins", "plugins",
	}
}

func pluginKeys() []string {
	return []string{
		"type", "ipam", "dns", "capabilities", "ipMasq", "args", "name", "cniVersion",
		"runtimeConfig", "prevResult", "nsinit",
	}
}

// A networkParser collects the faults of one file.
type networkParser struct {
	source string
	src    []byte
	faults []error
}

func (p *networkParser) faultf(path, value, format string, args ...any) {
	where := p.source
	if path != "" {
		where += ": " + path
	}
	p.faults = append(p.faults, faultf(where, value, format, args...))
}

func (p *networkParser) missing(path, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s: %s: missing; %w", p.source, path, fmt.Errorf(format, args...)))
}

// raw returns v as it was written.
func (p *networkParser) raw(v *jsonValue) string { return string(p.src[v.pos:v.end]) }

// parseNetwork reads a list, or a file of one plugin as a list of one. With a
// fault behind the name it returns the network so far and all faults.
func parseNetwork(src []byte, source string) (*parsedNetwork, error) {
	top, err := readJSON(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	p := networkParser{source: source, src: src}
	if top.kind != '{' {
		return nil, faultf(source, p.raw(&top), "%s, not an object; { \"cniVersion\": ..., \"name\": ..., \"plugins\": [...] }", top.what())
	}
	n := &parsedNetwork{Network: Network{Source: source}}
	p.foldedKeys("", &top, listKeys())
	n.Name = p.name(&top)
	n.CNIVersion = p.version(&top, n)
	p.plugins(&top, n)
	if n.Name == "" {
		return nil, errors.Join(p.faults...)
	}
	return n, errors.Join(p.faults...)
}

// foldedKeys refuses the keys of v that differ from one of known by case alone.
func (p *networkParser) foldedKeys(path string, v *jsonValue, known []string) {
	for _, key := range v.keys() {
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, key) })
		if i >= 0 && known[i] != key {
			p.faultf(path, key, "unknown key; write %q", known[i])
		}
	}
}

// str returns the string at key, "" with a fault if it is something else.
func (p *networkParser) str(v *jsonValue, path, key string) (string, bool) {
	m, ok := v.get(key)
	if !ok {
		return "", false
	}
	if m.kind != '"' {
		p.faultf(join2(path, key), p.raw(m), "%s, not a string; put it in quotes", m.what())
		return "", false
	}
	return m.text, true
}

func join2(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// name returns the network's name, "" with a fault if it has none.
func (p *networkParser) name(top *jsonValue) string {
	if _, given := top.get("name"); !given {
		p.missing("name", "add \"name\", the network's: letters, digits, \"_\", \".\", \"-\"")
		return ""
	}
	name, ok := p.str(top, "", "name")
	if !ok {
		return ""
	}
	if err := CheckNetworkName(name); err != nil {
		p.faultf("name", name, "%w", err)
		return ""
	}
	return name
}

// version returns the version that the list is written for, the newest of
// cniVersions (CNI 1.1) if it names several.
func (p *networkParser) version(top *jsonValue, n *parsedNetwork) string {
	version := ""
	if _, given := top.get("cniVersion"); given {
		if v, ok := p.str(top, "", "cniVersion"); ok {
			version = p.knownVersion("cniVersion", v)
		}
	} else if _, given := top.get("cniVersions"); !given {
		n.Warnings = append(n.Warnings, fmt.Sprintf(
			"%s: cniVersion: missing, which CNI reads as 0.1.0; add \"cniVersion\": \"1.1.0\"", p.source))
		return "0.1.0"
	}
	before := len(p.faults)
	list, given := top.get("cniVersions")
	if !given {
		return version
	}
	if list.kind != '[' {
		p.faultf("cniVersions", p.raw(list), "%s, not a list", list.what())
		return version
	}
	for i := range listItems(list) {
		path := fmt.Sprintf("cniVersions[%d]", i)
		item := &list.items[i]
		if item.kind != '"' {
			p.faultf(path, p.raw(item), "%s, not a string", item.what())
			continue
		}
		if newerVersion(item.text) {
			continue // for tools that know it
		}
		if v := p.knownVersion(path, item.text); v > version { // all of one digit
			version = v
		}
	}
	if version == "" && len(p.faults) == before {
		p.faultf("cniVersions", p.raw(list), "none that nsinit knows; add one of %s", strings.Join(cniVersions(), ", "))
	}
	return version
}

// newerVersion says whether v is of the form 1.2.3 and behind the last that nsinit knows.
func newerVersion(v string) bool {
	newest := [3]int{1, 1, 0}
	parts := strings.Split(v, ".")
	if len(parts) != len(newest) {
		return false
	}
	var numbers [3]int
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return false
		}
		numbers[i] = n
	}
	return slices.Compare(numbers[:], newest[:]) > 0
}

func listItems(v *jsonValue) []jsonValue {
	if v == nil {
		return nil
	}
	return v.items
}

func (p *networkParser) knownVersion(path, v string) string {
	if slices.Contains(cniVersions(), v) {
		return v
	}
	p.faultf(path, v, "unknown version; one of %s", strings.Join(cniVersions(), ", "))
	return ""
}

// plugins fills n.Plugins from a list or, if there is none, from the file as
// one plugin.
func (p *networkParser) plugins(top *jsonValue, n *parsedNetwork) {
	n.inlinedOnly = p.boolean(top, "loadOnlyInlinedPlugins")
	n.DisableCheck = p.boolean(top, "disableCheck")
	n.DisableGC = p.boolean(top, "disableGC")
	list, isList := top.get("plugins")
	_, isPlugin := top.get("type")
	ext := filepath.Ext(p.source)
	switch {
	case isList && isPlugin:
		p.faults = append(p.faults, fmt.Errorf("%s: has both plugins and type; a list has plugins, a single plugin has type", p.source))
	case isList:
		p.pluginList(list, n)
	case isPlugin && ext == ".conflist":
		p.missing("plugins", "this is a single plugin: put it into \"plugins\": [...], or name the file .conf")
	case isPlugin:
		n.inlinedOnly = true
		p.plugin("", top, n)
	default:
		p.missing("plugins", "a list of at least one plugin%s", didYouMean("plugins", top.keys()))
	}
}

func (p *networkParser) pluginList(list *jsonValue, n *parsedNetwork) {
	switch {
	case list.kind != '[':
		p.faultf("plugins", p.raw(list), "%s, not a list", list.what())
	case len(list.items) == 0:
		p.faultf("plugins", "[]", "empty; a list of at least one plugin")
	}
	for i := range list.items {
		p.plugin(fmt.Sprintf("plugins[%d]", i), &list.items[i], n)
	}
}

// boolean reads true or false, which CNI's library takes in quotes as well.
func (p *networkParser) boolean(top *jsonValue, key string) bool {
	v, ok := top.get(key)
	switch {
	case !ok || v.kind == 'f':
		return false
	case v.kind == 't':
		return true
	case v.kind == '"' && strings.EqualFold(v.text, "false"):
		return false
	case v.kind == '"' && strings.EqualFold(v.text, "true"):
		return true
	}
	p.faultf(key, p.raw(v), "neither true nor false")
	return false
}

// plugin appends one plugin.
func (p *networkParser) plugin(path string, v *jsonValue, n *parsedNetwork) {
	if v.kind != '{' {
		p.faultf(path, p.raw(v), "%s, not an object", v.what())
		return
	}
	p.foldedKeys(path, v, pluginKeys())
	t, ok := p.pluginType(path, v)
	if ipam, given := v.get("ipam"); given {
		p.ipam(join2(path, "ipam"), ipam)
	}
	if strategyOf(t) != nil {
		p.noNulls(path, v)
	}
	if ok {
		n.Plugins = append(n.Plugins, Plugin{Type: t, Raw: p.src[v.pos:v.end]})
	}
}

// noNulls refuses null anywhere in a plugin of ours: encoding/json reads it as
// nothing given, whatever the type.
func (p *networkParser) noNulls(path string, v *jsonValue) {
	if v.kind == 'n' {
		p.faultf(path, "null", "no value; leave the key out")
	}
	for i := range v.members {
		p.noNulls(join2(path, v.members[i].key), &v.members[i].value)
	}
	for i := range v.items {
		p.noNulls(fmt.Sprintf("%s[%d]", path, i), &v.items[i])
	}
}

func (p *networkParser) pluginType(path string, v *jsonValue) (string, bool) {
	if _, given := v.get("type"); !given {
		p.missing(join2(path, "type"), "as \"type\": \"bridge\"%s", didYouMean("type", v.keys()))
		return "", false
	}
	t, ok := p.str(v, path, "type")
	if !ok {
		return "", false
	}
	if err := checkPluginType(t); err != nil {
		p.faultf(join2(path, "type"), t, "%w", err)
		return "", false
	}
	return t, true
}

// ipam checks what every address plugin has: an object, empty or with a type.
func (p *networkParser) ipam(path string, v *jsonValue) {
	switch {
	case v.kind != '{':
		p.faultf(path, p.raw(v), "%s, not an object", v.what())
	case len(v.members) > 0:
		p.foldedKeys(path, v, []string{"type", "ranges", "routes", "dataDir", "addresses", "resolvConf", "subnet", "gateway", "rangeStart", "rangeEnd", "dns"})
		p.pluginType(path, v)
	}
}

// addPluginFile appends the plugin that src holds, of the folder beside the list.
func (n *parsedNetwork) addPluginFile(src []byte, source string) error {
	top, err := readJSON(src)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	p := networkParser{source: source, src: src}
	p.plugin("", &top, n)
	return errors.Join(p.faults...)
}
