package netsetup

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// ExternalPrefix starts the strategy of a network whose first plugin is a program of
// its own, not one of nsinit's, and the type of such a policy: exec:calico.
const ExternalPrefix = "exec:"

// RunsPlugin tells whether p asks for the real plugin (CNI's program of its type)
// where nsinit has one of its own: by "nsinit": "exec".
func RunsPlugin(p Plugin) bool {
	v, err := readJSON(p.Raw)
	if err != nil {
		return false // its fault is told by whoever reads it
	}
	who, ok := v.get("nsinit")
	return ok && who.kind == '"' && who.text == "exec"
}

// NativeIPAM tells whether nsinit gives the addresses of an "ipam" type itself.
func NativeIPAM(kind string) bool { return kind == "" || kind == "host-local" || kind == "static" }

// external is a network whose interface another program makes: package chain runs it,
// for the init, which links this package, runs none.
type external struct{}

// Plan leaves the configuration to the program.
func (external) Plan(r Request) (Plan, error) {
	f := requestFaults{where: r.where()}
	if r.IfName != "" {
		f.add("interface name", r.IfName, CheckIfName(r.IfName))
	}
	if r.MAC != "" {
		_, err := ParseMAC(r.MAC)
		f.add("mac", r.MAC, err)
	}
	no := errors.New("a plugin that is run can't be asked for it; write it into the network's file")
	if r.MTU != 0 {
		f.add("mtu", "", no)
	}
	if len(r.Gateways) > 0 {
		f.add("gateway", r.Gateways[0].String(), no)
	}
	if len(r.Routes) > 0 {
		f.add("route", r.Routes[0].Dst.String(), no)
	}
	return Plan{Request: r}, errors.Join(f.faults...)
}

// Attach isn't called: see package chain.
func (external) Attach(context.Context, *Host, *NetNS, Plan, []netip.Prefix, []netip.Addr, Recorder) (Attachment, error) {
	return Attachment{}, errors.New("a plugin of its own can't be run here")
}

// Check has nothing to compare: the program has its own CHECK.
func (external) Check(ctx context.Context, _ *Host, _ *NetNS, _ Attachment) ([]Difference, error) {
	return nil, ctx.Err()
}

// Configure has nothing to do: the program has finished the interface.
func (external) Configure(*Inside, Attachment) error { return nil }

// Commands can't tell what the program does.
func (external) Commands(Plan, Attachment) []Command { return nil }

// TakeAddresses makes p a plan with what an address plugin gave: addrs, each with the
// gateway of the same index, zero for none; routes; and resolvers, if the network has none.
func (p *Plan) TakeAddresses(addrs []netip.Prefix, gateways []netip.Addr, routes []Route, dns DNS) {
	for i, a := range addrs {
		p.Subnets = append(p.Subnets, Subnet{Prefix: a.Masked(), Gateway: gateways[i]})
	}
	p.IPs = nil
	v4, v6 := p.families()
	p.NoIPv6 = v4 && !v6
	p.Routes = slices.Concat(routes, p.Routes)
	if p.Defaults {
		p.addDefaults(v4, v6)
	}
	if p.DNS.isZero() {
		p.DNS = dns
	}
}

// Readdress gives a, which was made and finished without addresses, those that came
// since. Configure then adds them.
func (p *Plan) Readdress(a *Attachment, addrs []netip.Prefix, gateways []netip.Addr) error {
	p.MAC = a.MAC
	whole, err := p.attachment(addrs, gateways)
	if err != nil {
		return err
	}
	a.Addresses, a.Gateways, a.Routes = whole.Addresses, whole.Gateways, whole.Routes
	a.DNS, a.NoIPv6, a.Arrived = whole.DNS, whole.NoIPv6, ""
	return nil
}

// isExternal tells whether strategy is that of a program of its own.
func isExternal(strategy string) bool { return strings.HasPrefix(strategy, ExternalPrefix) }
