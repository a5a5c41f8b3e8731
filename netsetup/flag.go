package netsetup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// The forms of the flag, for errors.
const (
	flagForms   = "bridge, ptp, macvlan, ipvlan, vlan, dummy, tap, none, host, ns:PATH, container:ID, or a network's NAME or FILE"
	optionsForm = "bridge:ip=10.1.0.2/24,gateway=10.1.0.1,mtu=1400,mac=02:00:00:00:00:01,interface_name=eth0"
)

// flagWords returns the words of the flag that are no networks' names.
func flagWords() []string {
	return append([]string{"bridge", "container", "host", "none", "ns", "ptp"}, linkWords()...)
}

// ParseFlag turns the value of --network into a request, with podman's words. A
// name that is no word of ours is looked up as a network in dirs, or is a file if
// it holds a slash. All faults are told at once, without the flag's name.
//
// Strategy says what it became: "bridge" and "ptp" without a network mean the
// default one (ipam.Fill); "macvlan" and the like have a network built for them; "netns" has its path in Path; "container" has the id
// of the other container in Path, for the caller to resolve; "none" and "host"
// are the caller's, too.
func ParseFlag(value string, dirs []string) (Request, error) {
	r := Request{Source: "--network " + value}
	word, options, err := splitFlag(value)
	if err != nil {
		return Request{}, err
	}
	switch word {
	case "none", "host":
		r.Strategy = word
		if options != "" {
			err = fmt.Errorf("%s: takes no options; write %s alone", quoted(value), word)
		}
	case "ns", "container":
		err = r.join(word, options)
	case "bridge", "ptp", "macvlan", "ipvlan", "vlan", "dummy", "tap":
		r.Strategy = word
		err = r.options(options)
	default:
		if r.Network, err = loadNamed(word, dirs); err == nil {
			r.Strategy = r.Network.Plugins[0].Type
			err = r.options(options)
		}
	}
	if err != nil {
		return Request{}, err
	}
	return r, nil
}

// splitFlag cuts value at the colon in front of the options.
func splitFlag(value string) (word, options string, err error) {
	if value == "" {
		return "", "", fmt.Errorf("empty; %s", flagForms)
	}
	if err := checkText(value); err != nil {
		return "", "", fmt.Errorf("%s: %w", quoted(value), err)
	}
	word, options, colon := strings.Cut(value, ":")
	switch {
	case strings.Contains(word, "/"):
		word, options = splitPath(value)
	case word == "":
		return "", "", fmt.Errorf("%s: no word in front of the colon; %s", quoted(value), flagForms)
	case colon && options == "":
		return "", "", fmt.Errorf("%s: nothing behind the colon; %s", quoted(value), formOf(word))
	}
	return word, options, nil
}

// splitPath cuts a path from its options. The path may hold colons, as may
// addresses: what is a file whole has no options, else KEY= behind a colon
// begins them.
func splitPath(value string) (path, options string) {
	if _, err := os.Stat(value); err == nil {
		return value, ""
	}
	for i := range len(value) {
		if value[i] != ':' {
			continue
		}
		key, _, ok := strings.Cut(value[i+1:], "=")
		if ok && !strings.ContainsAny(key, ":/,") {
			return value[:i], value[i+1:]
		}
	}
	return value, ""
}

func formOf(word string) string {
	switch word {
	case "ns":
		return "ns:/run/netns/NAME"
	case "container":
		return "container:ID"
	case "none", "host", "tap":
		return word
	case "macvlan", "ipvlan":
		return word + ":parent=eth1,ip=10.1.0.2/24,gateway=10.1.0.1"
	case "vlan":
		return "vlan:parent=eth1,vlan=100,ip=10.1.0.2/24"
	case "dummy":
		return "dummy:ip=10.1.0.2/32"
	}
	return optionsForm
}

// checkText refuses what no flag holds: control characters and what is no UTF-8.
func checkText(s string) error {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("control character %#02x; remove it", s[i])
		}
	}
	if strings.ToValidUTF8(s, "") != s {
		return errors.New("not UTF-8")
	}
	return nil
}

// join reads what stands behind "ns:" and "container:".
func (r *Request) join(word, target string) error {
	switch {
	case target == "":
		return fmt.Errorf("%s: nothing to join; %s", quoted(word), formOf(word))
	case word == "ns" && !strings.HasPrefix(target, "/"):
		return fmt.Errorf("ns: %s: not an absolute path; as ns:/run/netns/NAME", quoted(target))
	case word == "container" && strings.Contains(target, "/"):
		return fmt.Errorf("container: %s: not an id; as container:ID", quoted(target))
	}
	r.Strategy, r.Path = "netns", target
	if word == "container" {
		r.Strategy = word
	}
	return nil
}

// loadNamed finds a network, and tells of a word that may be meant.
func loadNamed(word string, dirs []string) (*Network, error) {
	n, err := LoadNetwork(word, dirs)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || strings.Contains(word, "/") {
		return n, err
	}
	switch word {
	case "slirp4netns", "pasta", "private":
		return nil, fmt.Errorf("%w; the word itself is not supported yet; %s", err, flagForms)
	}
	return nil, fmt.Errorf("%w; or %s%s", err, flagForms, didYouMean(word, flagWords()))
}

// build makes a network of the options if they describe one: the same
// configuration as a file's.
//
//   - bridge=NAME: that bridge, which nsinit gives no address and no
//     masquerading: it may be the site's. Addresses as written, or none.
//   - bridge with ip=ADDRESS/LENGTH: a bridge of that subnet's own, which carries
//     the gateway.
//   - ptp with ip=ADDRESS/LENGTH: addresses as written.
//
// What is left is a request of the default network.
func (r *Request) build(bridge string) error {
	written := len(r.IPs) > 0 && r.IPs[0].Bits() >= 0
	if r.Network != nil || bridge == "" && !written {
		return nil
	}
	if bridge != "" && len(r.IPs) > 0 && !written {
		return fmt.Errorf("ip: %s: no prefix length, and bridge %s has no pool; write ip=%s/24 or the like", quoted(r.IPs[0].Addr().String()), bridge, r.IPs[0].Addr())
	}
	plugin := map[string]any{"type": r.Strategy}
	name := "bridge-" + bridge
	if CheckNetworkName(name) != nil { // a bridge may be called what no network may
		name = "bridge-" + shortHash(bridge)
	}
	switch {
	case bridge != "":
		plugin["bridge"] = bridge
	case r.Strategy == "bridge":
		id := subnetID(r.IPs)
		name = "bridge-" + id
		plugin["bridge"], plugin["isGateway"], plugin["isDefaultGateway"], plugin["ipMasq"] = "nsi-"+id, true, true, true
	default:
		name = "ptp-" + subnetID(r.IPs)
		plugin["ipMasq"] = true
	}
	if written {
		ipam := map[string]any{"type": "static"}
		if r.Strategy == "ptp" {
			ipam["routes"] = r.defaultRoutes()
		}
		plugin["ipam"] = ipam
	}
	raw, err := json.Marshal(plugin)
	if err != nil {
		return fmt.Errorf("network of options: %w", err)
	}
	r.Network = &Network{
		CNIVersion: "1.1.0", Name: name, Source: r.Source,
		Plugins: []Plugin{{Type: r.Strategy, Raw: raw}}, ownSubnet: bridge == "",
	}
	return nil
}

// defaultRoutes returns a default route for each family of the addresses: a
// point-to-point link has no key for that, as a bridge has isDefaultGateway.
func (r *Request) defaultRoutes() (routes []map[string]string) {
	for _, dst := range []string{"0.0.0.0/0", "::/0"} {
		all := netip.MustParsePrefix(dst)
		if slices.ContainsFunc(r.IPs, func(p netip.Prefix) bool { return p.Addr().Is4() == all.Addr().Is4() }) {
			routes = append(routes, map[string]string{"dst": dst})
		}
	}
	return routes
}

// subnetID names the subnet of ips, the IPv4 one if there is one, in eight letters:
// requests of one subnet meet on one bridge.
func subnetID(ips []netip.Prefix) string {
	subnet := ips[0].Masked()
	for _, p := range ips {
		if p.Addr().Is4() {
			subnet = p.Masked()
			break
		}
	}
	return shortHash(subnet.String())
}

func shortHash(s string) string {
	sum := fnv.New32a()
	sum.Write([]byte(s))
	return hex.EncodeToString(sum.Sum(nil))
}

// OwnSubnet says whether r's network is a bridge or a link that ParseFlag built
// for the addresses of r, and not one that the flag or a file named.
func OwnSubnet(r Request) bool { return r.Network != nil && r.Network.ownSubnet }
