package differential

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// names are what chance gives: MAC addresses, the link-local addresses that follow from them, the names of veths on the
// host. They are replaced by what they belong to.
type names struct {
	text  string // of the case: what it names stays
	pairs [][2]string
	count int
}

func newNames(tc *testCase) *names { return &names{text: tc.text} }

// learn takes the links of a node, as ip tells them.
func (n *names) learn(word string, links []map[string]any) {
	// A bridge may have a port's address: it is the port's then.
	slices.SortStableFunc(links, func(a, b map[string]any) int { return rank(a) - rank(b) })
	for _, l := range links {
		name, _ := l["ifname"].(string)
		info, _ := l["linkinfo"].(map[string]any)
		_, far := l["link_netnsid"]
		called := name
		random := randomVeth.MatchString(name) || word == "host" && far && info["info_kind"] == "veth" && !strings.HasPrefix(name, "to-")
		kind := "veth"
		if info["info_kind"] == "ifb" {
			random, kind = true, "ifb"
		}
		peer, near := l["link"].(string)
		switch {
		case near && !far && info["info_kind"] == "veth" && randomPort.MatchString(name): // the other end has a name that was asked for
			called = "veth#" + peer
			n.pairs = append(n.pairs, [2]string{name, called})
		case random && !strings.Contains(n.text, name):
			called = fmt.Sprintf("%s#%d", kind, n.count)
			n.count++
			n.pairs = append(n.pairs, [2]string{name, called})
		}
		for _, key := range []string{"address", "permaddr"} {
			if mac, _ := l[key].(string); mac != "" {
				n.mac(mac, fmt.Sprintf("(%s %s)", word, called))
			}
		}
	}
}

func rank(l map[string]any) int {
	info, _ := l["linkinfo"].(map[string]any)
	if info["info_kind"] == "bridge" {
		return 1
	}
	return 0
}

func (n *names) mac(mac, owner string) {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 || strings.Contains(n.text, mac) || mac == "00:00:00:00:00:00" {
		return
	}
	if slices.ContainsFunc(n.pairs, func(p [2]string) bool { return p[0] == mac }) {
		return
	}
	n.pairs = append(n.pairs, [2]string{mac, "MAC" + owner}, [2]string{linkLocal(hw), "LL" + owner}, [2]string{strings.ReplaceAll(mac, ":", ""), "MAC" + owner})
	for id := range byte(16) {
		n.pairs = append(n.pairs, [2]string{sharedLinkLocal(hw, id+1), "LL" + owner})
	}
}

func linkLocal(mac net.HardwareAddr) string {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}).String()
}

// sharedLinkLocal is that of a device with its parent's MAC address: the kernel's number of it makes the difference
// (addrconf_ifid_eui48 in net/ipv6).
func sharedLinkLocal(mac net.HardwareAddr, id byte) string {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0], 9: mac[1], 10: mac[2], 12: id, 13: mac[3], 14: mac[4], 15: mac[5]}).String()
}

var (
	anyLinkLocal = regexp.MustCompile(`fe80::[0-9a-f]+:[0-9a-f]*ff:fe[0-9a-f]+:[0-9a-f]+`)
	randomVeth   = regexp.MustCompile(`^veth[0-9a-f]{8}$`) // inside, one that its plugin left there half made
	randomPort   = regexp.MustCompile(`^(veth|nsi-)[0-9a-f]{8}$`)
	bridgeID     = regexp.MustCompile(`\b[0-9a-f]{4}\.[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}\b`)
	anyMAC       = regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`)
)

// apply replaces them in all facts.
func (n *names) apply(f facts) facts {
	var list []string
	slices.SortStableFunc(n.pairs, func(a, b [2]string) int { return len(b[0]) - len(a[0]) })
	for _, p := range n.pairs {
		list = append(list, p[0], p[1])
	}
	replacer := strings.NewReplacer(list...)
	replace := func(s string) string {
		s = bridgeID.ReplaceAllStringFunc(s, padded)
		s = anyLinkLocal.ReplaceAllString(replacer.Replace(s), "LL(another)")
		return anyMAC.ReplaceAllStringFunc(s, func(mac string) string {
			if strings.Contains(n.text, mac) || mac == "ff:ff:ff:ff:ff:ff" || mac == "00:00:00:00:00:00" || strings.HasPrefix(mac, "01:80:c2") {
				return mac
			}
			return "MAC(another)"
		})
	}
	out := make(facts, len(f))
	for k, v := range f {
		if strings.Contains(k.object, " sysctl ") {
			out[fact{replacer.Replace(k.object), k.attr}] = v
			continue
		}
		out[fact{replace(k.object), replace(k.attr)}] = replace(v)
	}
	return out
}

// padded gives a bridge's id, which ip writes with %x, its zeros.
func padded(id string) string {
	priority, mac, _ := strings.Cut(id, ".")
	parts := strings.Split(mac, ":")
	for i, p := range parts {
		if len(p) == 1 {
			parts[i] = "0" + p
		}
	}
	return priority + "." + strings.Join(parts, ":")
}
