package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// PortmapConf is what the plugin portmap is configured to do, and what is asked of it.
type PortmapConf struct {
	NoSNAT   bool          // snat: false: neighbours and the host's 127.0.0.1 are not masqueraded, and get no answers
	MasqAll  bool          // masqueraded is what comes to the ports from anywhere
	Mappings []PortMapping // neighbouring ones are one range
}

const (
	minMarkBit, maxMarkBit = 0, 31
	maxPort                = 65535
)

// ReadPortmap reads the keys of the plugin, which stands in the list of p's network, and the
// port mappings that p asks for: the request's, else those of the plugin's runtimeConfig.
// All faults are returned at once.
func ReadPortmap(p Plan, plugin Plugin) (PortmapConf, error) {
	r := portmapReader{snat: true, markBit: -1}
	if err := policyConf(p, plugin, func(c *confReader) []confKey {
		r.confReader = c
		return r.keys()
	}); r.confReader == nil {
		return PortmapConf{}, err
	}
	where := r.where + ": " + p.placeOf(plugin)
	if v, bad := readJSON(plugin.Raw); bad == nil {
		_, runtime := ofArgs(&v)
		r.runtimeConfig(p.placeOf(plugin)+".runtimeConfig", runtime)
	}
	var faults []error
	if r.markBit >= 0 && r.setMarkChain != "" {
		faults = append(faults, fmt.Errorf("%s: markMasqBit and externalSetMarkChain exclude each other; one of them", where))
	}
	list := r.mappings
	if len(p.Runtime.PortMappings) > 0 {
		list = p.Runtime.PortMappings
	}
	for i, m := range list {
		if err := CheckPortMapping(m); err != nil {
			faults = append(faults, fmt.Errorf("%s: portMappings[%d].%w", where, i, err))
		}
	}
	conf := PortmapConf{NoSNAT: !r.snat, MasqAll: r.masqAll, Mappings: joinRanges(list)}
	return conf, errors.Join(append(append(r.faults, faults...), overlaps(where, conf.Mappings))...)
}

type portmapReader struct {
	*confReader
	snat, masqAll bool
	markBit       int
	setMarkChain  string
	mappings      []PortMapping
}

func (r *portmapReader) keys() []confKey {
	return []confKey{
		{"snat", r.boolean(&r.snat)},
		{"masqAll", r.boolean(&r.masqAll)},
		{"backend", r.backend},
		{"markMasqBit", r.readMarkBit},
		{"externalSetMarkChain", r.text(&r.setMarkChain)},
		{"conditionsV4", r.conditions},
		{"conditionsV6", r.conditions},
	}
}

// backend: whichever is named, the rules are in nsinit's own table of nftables.
func (r *portmapReader) backend(path string, v *jsonValue) {
	if v.kind != 'n' && v.text != "iptables" && v.text != "nftables" {
		r.faultf(path, v.text, `"iptables", "nftables", or leave it out; nsinit uses nftables either way`)
	}
}

// readMarkBit checks the bit, which isn't used: nothing of nsinit's needs a mark to be masqueraded.
func (r *portmapReader) readMarkBit(path string, v *jsonValue) {
	if v.kind == 'n' {
		return
	}
	r.number(&r.markBit)(path, v)
	if r.markBit > maxMarkBit {
		r.faultf(path, v.text, "a bit of the packet's mark is wanted, %d to %d", minMarkBit, maxMarkBit)
	}
}

// conditions are words for iptables or nft, of which nsinit runs neither.
func (r *portmapReader) conditions(path string, v *jsonValue) {
	if v.asksNothing() || v.kind == '[' && len(v.items) == 1 && v.items[0].asksNothing() {
		return
	}
	r.faults = append(r.faults, fmt.Errorf(
		`%s: %s: conditions are for iptables or nft, which nsinit doesn't run; leave them out, or let the real plugin do it ("nsinit": "exec")`, r.where, path))
}

func (r *portmapReader) runtimeConfig(path string, v *jsonValue) {
	if list, ok := v.get("portMappings"); ok {
		r.list(r.mapping)(path+".portMappings", list)
	}
}

func (r *portmapReader) mapping(path string, v *jsonValue) {
	var m PortMapping
	var host string
	r.object(path, v, append([]confKey{
		{"hostPort", r.number(&m.HostPort)},
		{"containerPort", r.number(&m.ContainerPort)},
		{"protocol", r.text(&m.Protocol)},
		{"hostIP", r.text(&host)},
	}, ignored("name")...)) // CRI-O's has one
	m.Protocol = strings.ToLower(m.Protocol)
	if host != "" { // the runtimes write an empty one for none
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			r.faultf(path+".hostIP", host, "an IP address is wanted, as 192.0.2.1")
		}
		m.HostIP = addr.Unmap()
	}
	r.mappings = append(r.mappings, m)
}

// CheckPortMapping tells what is wrong with m, whose host port may be 0: one that is free.
func CheckPortMapping(m PortMapping) error {
	n := max(m.Count, 1)
	switch {
	case m.Protocol != "tcp" && m.Protocol != "udp" && m.Protocol != "sctp":
		return fmt.Errorf(`protocol: %s: unknown; "tcp", "udp" or "sctp"`, quoted(m.Protocol))
	case m.Count < 0:
		return fmt.Errorf("count: %d: 1 or more", m.Count)
	case m.ContainerPort < 1 || m.ContainerPort+n-1 > maxPort:
		return fmt.Errorf("containerPort: %s: 1 to %d", portsText(m.ContainerPort, n), maxPort)
	case m.HostPort < 0 || m.HostPort+n-1 > maxPort:
		return fmt.Errorf("hostPort: %s: 1 to %d", portsText(m.HostPort, n), maxPort)
	case m.HostIP.IsMulticast() || m.HostIP.Zone() != "":
		return fmt.Errorf("hostIP: %s: an address of the host is wanted", m.HostIP)
	}
	return nil
}

func portsText(first, count int) string {
	if count == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}

// String is the mapping as a person writes it behind --publish.
func (m PortMapping) String() string {
	n := max(m.Count, 1)
	host := ""
	switch {
	case m.HostIP.Is6():
		host = "[" + m.HostIP.String() + "]:"
	case m.HostIP.IsValid():
		host = m.HostIP.String() + ":"
	}
	return fmt.Sprintf("%s%s:%s/%s", host, portsText(m.HostPort, n), portsText(m.ContainerPort, n), m.Protocol)
}

// joinRanges makes ranges of mappings that continue each other: CNI has only single ports,
// and a runtime that was asked for a range writes them all down.
func joinRanges(list []PortMapping) []PortMapping {
	var all []PortMapping
	for _, m := range list {
		m.Count = max(m.Count, 1)
		if n := len(all); n > 0 && continues(all[n-1], m) {
			all[n-1].Count += m.Count
			continue
		}
		all = append(all, m)
	}
	return all
}

func continues(a, b PortMapping) bool {
	return a.HostPort > 0 && a.HostPort+a.Count == b.HostPort && a.ContainerPort+a.Count == b.ContainerPort &&
		a.Protocol == b.Protocol && a.HostIP == b.HostIP
}

// overlaps finds a host port that two mappings want.
func overlaps(where string, list []PortMapping) error {
	for i, a := range list {
		for _, b := range list[:i] {
			if a.Overlaps(b) {
				return fmt.Errorf("%s: %s and %s: the same host port twice; one of them", where, b, a)
			}
		}
	}
	return nil
}

// Overlaps tells whether a and b take the same port of the same address of the host.
func (m PortMapping) Overlaps(b PortMapping) bool {
	if m.Protocol != b.Protocol || m.HostPort == 0 || b.HostPort == 0 ||
		m.HostPort > b.HostPort+max(b.Count, 1)-1 || b.HostPort > m.HostPort+max(m.Count, 1)-1 {
		return false
	}
	switch {
	case !m.HostIP.IsValid() || !b.HostIP.IsValid():
		return true
	case m.HostIP.Is4() != b.HostIP.Is4():
		return false
	}
	return m.HostIP == b.HostIP || m.HostIP.IsUnspecified() || b.HostIP.IsUnspecified()
}

// Publishes tells whether r's network can publish ports: its list has portmap, or it
// connects by a strategy that has a device on the host.
func Publishes(r Request) bool {
	switch r.Strategy {
	case "bridge", "ptp":
		return true
	}
	return r.Network != nil && r.Network.has("portmap")
}

func (n *Network) has(kind string) bool {
	return slices.ContainsFunc(n.Plugins, func(p Plugin) bool { return p.Type == kind })
}

// WithPortmap returns n with the plugin portmap behind its others, unless it has it.
func (n *Network) WithPortmap() *Network {
	if n.has("portmap") {
		return n
	}
	with := *n
	with.Plugins = append(slices.Clip(slices.Clone(n.Plugins)), Plugin{Type: "portmap", Raw: []byte(`{"type": "portmap"}`)})
	return &with
}
