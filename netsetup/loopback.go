package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// loopback is lo alone: up, with the addresses that the kernel gives it then.
type loopback struct{}

// Plan validates r without asking the kernel and returns all its faults at once.
func (loopback) Plan(r Request) (Plan, error) {
	p := Plan{Request: r}
	var err error
	if r.Network != nil {
		var conf netConf
		conf, err = confOf(r, func(*confReader, *netConf) []confKey { return nil })
		if p.MTU == 0 {
			p.MTU = conf.mtu
		}
		if conf.ipam.kind != "" || conf.ipMasq {
			err = errors.Join(err, fmt.Errorf("%s: loopback has its own addresses; leave out ipam and ipMasq", r.where()))
		}
	}
	f := requestFaults{where: r.where()}
	f.add("mtu", fmt.Sprint(p.MTU), CheckMTU(p.MTU, true))
	if r.IfName != "" && r.IfName != loopbackIfName {
		f.add("interface name", r.IfName, errors.New("loopback is called lo"))
	}
	p.IfName = loopbackIfName
	f.nothingElse(r)
	return p, errors.Join(err, errors.Join(f.faults...))
}

// nothingElse refuses what a strategy without an interface of its own can't do.
func (f *requestFaults) nothingElse(r Request) {
	no := fmt.Errorf("a network of kind %s takes none", r.Strategy)
	if len(r.IPs) > 0 {
		f.add("ip", r.IPs[0].String(), no)
	}
	if len(r.Gateways) > 0 {
		f.add("gateway", r.Gateways[0].String(), no)
	}
	if len(r.Routes) > 0 {
		f.add("route", r.Routes[0].Dst.String(), no)
	}
	if r.MAC != "" {
		f.add("mac", r.MAC, no)
	}
}

// Attach has nothing to make: every network namespace has its lo.
func (loopback) Attach(ctx context.Context, _ *Host, _ *NetNS, p Plan, _ []netip.Prefix, _ []netip.Addr, _ Recorder) (Attachment, error) {
	return Attachment{
		Network: p.networkName(), Strategy: p.Strategy, IfName: loopbackIfName, MTU: p.MTU,
		Addresses: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8),
			netip.PrefixFrom(netip.IPv6Loopback(), 128),
		},
	}, ctx.Err()
}

// Check returns every difference between a and the kernel inside.
func (loopback) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkBoth(target, a, nil)
}

// Configure brings lo up.
func (loopback) Configure(in *Inside, a Attachment) error { return ConfigureLoopback(in, a.MTU) }

// ConfigureLoopback brings lo up with its addresses; mtu 0 leaves the kernel's.
func ConfigureLoopback(in *Inside, mtu int) error {
	up := ifinfo(loopbackIndex, unix.IFF_UP, unix.IFF_UP)
	var err error
	if mtu == 0 {
		err = in.c.setLink(up)
	} else {
		err = in.c.setLink(up, mtuAttr(mtu))
	}
	if err != nil {
		return fmt.Errorf("lo: set up: %w", err)
	}
	return nil
}

// LowerLoopback sets lo of target down, as DEL of CNI's loopback does.
func LowerLoopback(target *NetNS) error {
	return target.Inside((*Inside).lowerLoopback)
}

func (in *Inside) lowerLoopback() error {
	if err := in.c.setLink(ifinfo(loopbackIndex, 0, unix.IFF_UP)); err != nil {
		return fmt.Errorf("lo: set down: %w", err)
	}
	return nil
}

// Commands returns what Attach and Configure do, in the words of iproute2.
func (loopback) Commands(_ Plan, a Attachment) []Command {
	mtu := ""
	if a.MTU != 0 {
		mtu = fmt.Sprintf(" mtu %d", a.MTU)
	}
	return []Command{{Inside: true, Line: "ip link set lo" + mtu + " up"}}
}

// chainedLoopback is the type loopback behind another plugin of a list, which it
// leaves as it is: every container's lo is up in any case.
type chainedLoopback struct{}

// LoopbackPolicy returns the policy of the type loopback.
func LoopbackPolicy() Policy { return chainedLoopback{} }

// Plan validates the plugin's keys.
func (chainedLoopback) Plan(p Plan, plugin Plugin) (any, error) {
	alone := *p.Network
	alone.Plugins = []Plugin{plugin}
	_, err := loopback{}.Plan(Request{Strategy: "loopback", Network: &alone, Source: p.Source})
	return nil, err
}

// Attach has nothing to make.
func (chainedLoopback) Attach(ctx context.Context, _ *Host, _ *NetNS, _ Plan, _ any, _ *Attachment, _ Recorder) error {
	return ctx.Err()
}

// Check compares lo.
func (chainedLoopback) Check(ctx context.Context, h *Host, target *NetNS, p Plan, _ any, _ Attachment) ([]Difference, error) {
	a, err := loopback{}.Attach(ctx, h, target, p, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	a.MTU = 0
	return h.checkBoth(target, a, nil)
}

// Commands returns what is done with lo in any case.
func (chainedLoopback) Commands(Plan, any, Attachment) []Command {
	return []Command{{Inside: true, Line: "ip link set lo up"}}
}
