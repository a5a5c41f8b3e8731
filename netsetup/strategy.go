package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// A Request is what one container asks of one network: the network, and the
// words of CNI's network selection element. A zero field means "as the network
// says".
type Request struct {
	Network  *Network       // the network; owned by the caller, never changed
	Strategy string         // "bridge", "ptp", "netns", ...: Network's first plugin type, or the flag's word
	IfName   string         // the name inside, at most 15 bytes; "" lets Plan number it: eth0, eth1, ...
	IPs      []netip.Prefix // addresses asked for; without a prefix length (Bits() < 0) the subnet's counts
	Gateways []netip.Addr   // default gateways, at most one a family
	Routes   []Route        // further routes
	MAC      string         // "" = derived from the first address, so that a neighbour's cache stays true
	MTU      int            // bytes; 0 = the network's, else the uplink's
	Path     string         // netns: the namespace to join, a path
	Device   string         // net-device: the host's device
	Stays    bool           // net-device: it is left where it is when the container ends: the namespace is not the container's own
	Source   string         // where it was written, for errors: `--network bridge:mtu=9`, `FILE`
	Owner    string         // the container's id, which the host's end names in its alias; "" = nobody
	Runtime  Runtime        // what is asked of the network's further plugins
	Unasked  bool           // what the container asks is told later: that it is missing is no fault
	Joined   bool           // the namespace lives on without the interface, which is recorded
}

// A Plan is a validated request: all that Attach needs, nothing decided later
// but what only the kernel or the address store can say.
type Plan struct {
	Request
	Bridge     string   // bridge: the host's device
	BridgeMAC  string   // explicit, so that it doesn't follow the lowest port
	Gateway    bool     // bridge: the bridge carries the gateway addresses (isGateway)
	Defaults   bool     // bridge: the default routes lead there (isDefaultGateway)
	Subnets    []Subnet // pools that addresses come from, with their gateways
	IPAM       string   // "host-local", "static", "", or the type of an address plugin that is run
	DataDir    string   // host-local: where leases are kept; "" = the plugins' own
	Masquerade bool     // traffic to the outside leaves with the host's address
	NoIPv6     bool     // no IPv6 address asked: none on the device either
	DNS        DNS      // what the network says of resolvers
	UplinkMTU  bool     // MTU 0: take the uplink's

	ForceAddress bool   // bridge: take its other addresses of the family away
	Promiscuous  bool   // bridge: the bridge itself is promiscuous
	DAD          bool   // look for duplicates of IPv6 addresses
	ResolvConf   string // host-local: a file on the host that says what DNS doesn't; "" = none

	NoLease  bool            // static addresses are nobody else's business: none is leased
	Own      any             // the strategy's own keys, as its Plan read them
	Policies []PlannedPolicy // of the network's further plugins, in the order of the list
}

// A Subnet is one pool of addresses.
type Subnet struct {
	Prefix     netip.Prefix
	Gateway    netip.Addr // zero: the first address of the prefix
	RangeStart netip.Addr // zero: the first after the network address
	RangeEnd   netip.Addr // zero: the last before the broadcast address

	// Alternative: this pool and the one before it are one range set, which gives
	// one address, from whichever has one left. False: a range set of its own.
	Alternative bool
}

// masqueradedWhole returns the pools that addrs lie in, where they are masqueraded as a whole; nil if an address lies in
// none.
func (p *Plan) masqueradedWhole(addrs []netip.Prefix) (subnets []netip.Prefix) {
	if !p.Masquerade || p.Network == nil || !p.Network.OwnBridge {
		return nil
	}
	for _, a := range addrs {
		i := slices.IndexFunc(p.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a.Addr()) })
		if i < 0 {
			return nil
		}
		if s := p.Subnets[i].Prefix.Masked(); !slices.Contains(subnets, s) {
			subnets = append(subnets, s)
		}
	}
	return subnets
}

// A Route is a route inside the container.
type Route struct {
	Dst     netip.Prefix `json:"dst"`              // 0.0.0.0/0 or ::/0 for a default route
	Gateway netip.Addr   `json:"gateway,omitzero"` // zero: on the link
	OnLink  bool         `json:"onLink,omitzero"`  // the gateway lies outside every prefix of the interface
	MTU     int          `json:"mtu,omitzero"`     // 0 = the interface's
	Metric  int          `json:"metric,omitzero"`  // 0 = the kernel's
	AdvMSS  int          `json:"advMSS,omitzero"`  // what TCP tells its peers to send at most; 0 = by the MTU
	Table   int          `json:"table,omitzero"`   // 0 = main
	Scope   int          `json:"scope,omitzero"`   // RT_SCOPE_..., IPv4 only; 0 = global behind a gateway, link without one
}

// DNS is what CNI calls dns: resolvers for the container.
type DNS struct {
	Nameservers []string `json:"nameservers,omitzero"`
	Domain      string   `json:"domain,omitzero"`
	Search      []string `json:"search,omitzero"`
	Options     []string `json:"options,omitzero"`
}

// An Attachment is one interface of a container: what the host half made and
// what the container half still has to do. It is the only value that passes
// between them, over the sync pipe, and it is kept in the container's state.
type Attachment struct {
	Network    string         `json:"network"`             // the network's name
	Strategy   string         `json:"strategy"`            // who made it
	IfName     string         `json:"ifName"`              // the name inside
	Arrived    string         `json:"arrived,omitzero"`    // the name that it arrived under; "" = IfName
	HostIf     string         `json:"hostIf,omitzero"`     // the host's end; "" if there is none
	Bridge     string         `json:"bridge,omitzero"`     // the bridge that HostIf is a port of; "" if none
	HostDevice string         `json:"hostDevice,omitzero"` // host-device, net-device: its name on the host
	Kept       [][]byte       `json:"-"`                   // net-device: its addresses, as the kernel told them
	MAC        string         `json:"mac,omitzero"`        // of the inner end
	MTU        int            `json:"mtu,omitzero"`        // bytes; 0 = leave it
	Addresses  []netip.Prefix `json:"addresses"`           // in order; the first of a family is the source address
	Gateways   []netip.Addr   `json:"gateways"`            // default gateways, at most one a family
	Routes     []Route        `json:"routes,omitzero"`     // further routes
	NoIPv6     bool           `json:"noIPv6,omitzero"`     // disable_ipv6 before it is up
	DAD        bool           `json:"dad,omitzero"`        // look for duplicates of IPv6 addresses first: a start then takes one to two seconds
	NewBridge  bool           `json:"newBridge,omitzero"`  // it was made for this attachment
	DNS        DNS            `json:"dns,omitzero"`
	Masquerade bool           `json:"masquerade,omitzero"`
	Subnets    []netip.Prefix `json:"masqueradedSubnets,omitzero"` // with Masquerade: they are, as a whole; nil: Addresses are
	Routed     bool           `json:"routed,omitzero"`             // its network has the host for a gateway, without masquerading
	Port       *BridgePort    `json:"port,omitzero"`               // bridge: what its port has that others have not; nil = nothing
	Sublink    *Sublink       `json:"sublink,omitzero"`            // what IfName stands on, if on another device
	Tap        *Tap           `json:"tap,omitzero"`                // of a tap device
	Configured bool           `json:"configured,omitzero"`         // Configure has nothing left to do: a real plugin needed the interface finished
	IFB        string         `json:"ifb,omitzero"`                // the device on the host behind which what the container sends is limited
	Sources    *SourceRouting `json:"sources,omitzero"`            // nil: nothing
	VRF        *VRF           `json:"vrf,omitzero"`                // nil: none
	Tuning     *Tuning        `json:"tuning,omitzero"`             // nil: nothing
	Ports      []PortMapping  `json:"ports,omitzero"`              // published on the host
}

// A Difference is one thing in which the kernel doesn't hold what an
// Attachment says.
type Difference struct {
	Object string `json:"object"`
	Want   string `json:"want"`
	Got    string `json:"got"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: want %s, the kernel has %s", d.Object, d.Want, d.Got)
}

// An Object is something on the host that does not die with the container's
// network namespace. It is recorded before it is made; whoever holds the record
// can undo it, at any time and more than once, without anything else.
type Object struct {
	Kind    string `json:"kind"`             // "lease", "masquerade", "netns-name", "bridge", "sysctl", "link", ...
	Network string `json:"network,omitzero"` // the network that it belongs to
	Name    string `json:"name"`             // address, device, path: what Kind needs
	Owner   string `json:"owner,omitzero"`   // the container's id; "" for what belongs to the network
	Dir     string `json:"dir,omitzero"`     // lease: the data directory
	IfName  string `json:"ifName,omitzero"`  // lease: the interface inside
	Was     string `json:"was,omitzero"`     // sysctl: the value to give back
}

// A Recorder writes an object into a record before the object is made.
type Recorder func(Object) error

// A Strategy connects a container to a network in one way. Plan, Attach and
// Check are the host half, Configure is the container half, and both stand in
// one file.
type Strategy interface {
	// Plan validates r without asking the kernel and returns all its faults at once.
	Plan(r Request) (Plan, error)
	// Attach makes the interface and puts it into the namespace target. addrs are
	// the addresses that IPAM gave, one or none a family, with their gateways in
	// gateways. What it makes dies with target, or is recorded first.
	Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, record Recorder) (Attachment, error)
	// Check returns every difference between a and the kernel, host side and inside.
	Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error)
	// Configure finishes the interface from within the container's namespace. The
	// network is usable when it returns.
	Configure(in *Inside, a Attachment) error
	// Commands returns what Attach and Configure do, in the words of iproute2.
	Commands(p Plan, a Attachment) []Command
}
