package netsetuptest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// A Link is an interface as `ip -d -j addr` shows it.
type Link struct {
	IfIndex     int      `json:"ifindex"`
	IfName      string   `json:"ifname"`
	Flags       []string `json:"flags"`
	MTU         int      `json:"mtu"`
	OperState   string   `json:"operstate"`
	LinkType    string   `json:"link_type"`
	Address     string   `json:"address"`
	Master      string   `json:"master"`
	Alias       string   `json:"ifalias"`
	NumTxQueues int      `json:"num_tx_queues"`
	NumRxQueues int      `json:"num_rx_queues"`
	AddrInfo    []Addr   `json:"addr_info"`
	LinkInfo    struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

// An Addr is an address as `ip -j addr` shows it.
type Addr struct {
	Family    string     `json:"family"` // inet, inet6
	Local     netip.Addr `json:"local"`
	PrefixLen int        `json:"prefixlen"`
	Scope     string     `json:"scope"`
	Tentative bool       `json:"tentative"`
	NoDAD     bool       `json:"nodad"`
	DADFailed bool       `json:"dadfailed"`
}

// Prefix is the address with its length.
func (a Addr) Prefix() netip.Prefix { return netip.PrefixFrom(a.Local, a.PrefixLen) }

// A Route is a route as `ip -j route` shows it.
type Route struct {
	Type     string   `json:"type"` // "" = unicast
	Dst      string   `json:"dst"`  // "default", an address or a prefix
	Gateway  string   `json:"gateway"`
	Dev      string   `json:"dev"`
	Protocol string   `json:"protocol"`
	Scope    string   `json:"scope"`
	PrefSrc  string   `json:"prefsrc"`
	Metric   int      `json:"metric"`
	Flags    []string `json:"flags"`
}

// Decode decodes what a command printed as JSON.
func Decode[T any](t testing.TB, r Result) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
		t.Fatalf("%q: not the JSON wanted: %v\nstdout: %s\nstderr: %s", r.Args, err, r.Stdout, r.Stderr)
	}
	return v
}

// Links returns the interfaces of n with their addresses.
func (n *Node) Links(t testing.TB) []Link {
	t.Helper()
	return Decode[[]Link](t, n.Run(t, "ip", "-d", "-j", "addr", "show").OK(t))
}

// Link returns the interface called name.
func (n *Node) Link(t testing.TB, name string) Link {
	t.Helper()
	return FindLink(t, n.Links(t), name)
}

// Routes returns the main table of both families.
func (n *Node) Routes(t testing.TB) []Route {
	t.Helper()
	v4 := Decode[[]Route](t, n.Run(t, "ip", "-4", "-j", "route").OK(t))
	return append(v4, Decode[[]Route](t, n.Run(t, "ip", "-6", "-j", "route").OK(t))...)
}

// FindLink returns the interface called name, and fails t if there is none.
func FindLink(t testing.TB, links []Link, name string) Link {
	t.Helper()
	i := slices.IndexFunc(links, func(l Link) bool { return l.IfName == name })
	if i < 0 {
		t.Fatalf("no interface %s among %s", name, Names(links))
	}
	return links[i]
}

// Names are the names of interfaces, in order.
func Names(links []Link) []string {
	names := make([]string, 0, len(links))
	for _, l := range links {
		names = append(names, l.IfName)
	}
	return names
}

// Up says whether the interface is up and has carrier.
func (l Link) Up() bool {
	return slices.Contains(l.Flags, "UP") && slices.Contains(l.Flags, "LOWER_UP")
}

// Addrs returns the addresses of a family (4 or 6), global ones only.
func (l Link) Addrs(family int) []netip.Prefix {
	var found []netip.Prefix
	for _, a := range l.AddrInfo {
		if a.Local.Is4() == (family == 4) && a.Scope == "global" {
			found = append(found, a.Prefix())
		}
	}
	return found
}

// Addr returns the only global address of a family, and fails t if there is none or more.
func (l Link) Addr(t testing.TB, family int) netip.Prefix {
	t.Helper()
	addrs := l.Addrs(family)
	if len(addrs) != 1 {
		t.Fatalf("%s: want one IPv%d address, have %v", l.IfName, family, addrs)
	}
	return addrs[0]
}

// FindRoute returns the routes to dst.
func FindRoute(routes []Route, dst string) []Route {
	return slices.DeleteFunc(slices.Clone(routes), func(r Route) bool { return r.Dst != dst })
}

func (r Route) String() string {
	return fmt.Sprintf("%s %s via %s dev %s proto %s metric %d", r.Type, r.Dst, r.Gateway, r.Dev, r.Protocol, r.Metric)
}
