package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// strategyOf finds a strategy by its word: a CNI plugin type that runs in
// process, or a word of the --network flag. A switch and not a map: the init
// links this package, and a map would be filled at each start.
func strategyOf(name string) Strategy {
	if isExternal(name) {
		return external{}
	}
	switch name {
	case "bridge":
		return bridge{}
	case "ptp":
		return ptp{}
	case "loopback":
		return loopback{}
	case "host-device":
		return hostDevice{}
	case "net-device":
		return netDevice{}
	case "netns":
		return join{}
	case "macvlan":
		return macvlan{}
	case "ipvlan":
		return ipvlan{}
	case "vlan":
		return vlan{}
	case "dummy":
		return dummy{}
	case "tap":
		return tap{}
	}
	return nil
}

// Strategies returns the words that StrategyOf knows, sorted.
func Strategies() []string {
	return []string{
		"bridge", "dummy", "host-device", "ipvlan", "loopback", "macvlan", "net-device", "netns", "ptp", "tap", "vlan",
	}
}

// StrategyOf returns the strategy called name; the error of an unknown one
// lists those that there are.
func StrategyOf(name string) (Strategy, error) {
	if s := strategyOf(name); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("network type %.64q: unknown; nsinit has %s", name, strings.Join(Strategies(), ", "))
}

// Attach connects target by the strategy of p.
func Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, record Recorder) (Attachment, error) {
	s, err := StrategyOf(p.Strategy)
	if err != nil {
		return Attachment{}, err
	}
	if err := recordInterface(target, p, record); err != nil {
		return Attachment{}, err
	}
	return s.Attach(ctx, h, target, p, slices.Clone(addrs), slices.Clone(gateways), record)
}

// Available says why an Attach of p could not work on the host as it is now: the device that it needs isn't there.
func Available(h *Host, p Plan) error {
	s, err := StrategyOf(p.Strategy)
	if err != nil {
		return err
	}
	if a, ok := s.(interface{ Available(*Host, Plan) error }); ok {
		return a.Available(h, p)
	}
	return nil
}

// Check asks the strategy of a for every difference between a and the kernel,
// on the host's side and inside target.
func Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	s, err := StrategyOf(a.Strategy)
	if err != nil {
		return nil, err
	}
	return s.Check(ctx, h, target, a)
}

// Configure finishes the interface of a inside.
func Configure(in *Inside, a Attachment) error {
	if a.Configured {
		return ConfigurePolicies(in, a)
	}
	s, err := StrategyOf(a.Strategy)
	if err != nil {
		return err
	}
	return s.Configure(in, a)
}
