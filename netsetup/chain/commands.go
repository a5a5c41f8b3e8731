package chain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A Step is one plugin's part of an attachment, or that of masquerading, in the words of
// ip(8), nft(8) and their like.
type Step struct {
	Name     string // the plugin's type, or "masquerade"
	Commands []netsetup.Command
}

// Preview plans what Attach would do to p's network, with the addresses that would be next
// and without doing anything. before are the container's other attachments, made or
// previewed as well.
func Preview(ctx context.Context, h *netsetup.Host, p netsetup.Plan, opts policy.Options, before []netsetup.Attachment) (netsetup.Attachment, []Step, error) {
	if strings.HasPrefix(p.Strategy, netsetup.ExternalPrefix) || !netsetup.NativeIPAM(p.IPAM) {
		return netsetup.Attachment{}, nil, fmt.Errorf("%s: another program is run for it (%s), and what that does nobody knows before; leave --dry-run out", p.Network.Source, strings.Trim(p.Strategy+", ipam "+p.IPAM, ", "))
	}
	var taken []ipam.Lease
	var defaults []netip.Addr
	for _, b := range before {
		defaults = append(defaults, b.Gateways...)
		for _, addr := range b.Addresses {
			taken = append(taken, ipam.Lease{Address: addr.Addr()})
		}
	}
	addrs, gateways, err := ipam.Look(p, taken)
	if err != nil {
		return netsetup.Attachment{}, nil, err
	}
	a, first, err := netsetup.Preview(h, p, addrs, gateways)
	if err != nil || ctx.Err() != nil {
		return a, nil, errors.Join(err, ctx.Err())
	}
	if a.Bridge != "" && slices.ContainsFunc(before, func(b netsetup.Attachment) bool { return b.Bridge == a.Bridge }) {
		a.NewBridge, first = false, nil // by then
	}
	for _, planned := range p.Policies {
		if pol, ok := PolicyOf(planned.Plugin.Type, opts).(previewer); ok {
			pol.Preview(p, planned.Conf, &a)
		}
	}
	numbered := a
	numbered.AfterDefaults(defaults)
	steps, err := Commands(p, numbered, opts)
	if len(first) > 0 {
		steps = append([]Step{{p.Strategy, first}}, steps...)
	}
	return a, steps, err
}

// A previewer is a policy whose Commands need what Attach adds to the attachment.
type previewer interface {
	Preview(p netsetup.Plan, conf any, a *netsetup.Attachment)
}

// Commands returns what Attach and Configure do for a, which was made of p, step by step;
// what the host has already, as the firewall table and forwarding, is left out.
func Commands(p netsetup.Plan, a netsetup.Attachment, opts policy.Options) ([]Step, error) {
	s, err := netsetup.StrategyOf(p.Strategy)
	if err != nil {
		return nil, err
	}
	steps := []Step{{p.Strategy, s.Commands(p, a)}}
	commands, err := policy.Commands(a, opts)
	if err != nil {
		return nil, err
	}
	if len(commands) > 0 {
		steps = append(steps, Step{hostPolicy(a), commands})
	}
	for _, planned := range p.Policies {
		step := Step{Name: planned.Plugin.Type}
		if pol := PolicyOf(planned.Plugin.Type, opts); pol != nil {
			step.Commands = pol.Commands(p, planned.Conf, a)
		}
		steps = append(steps, step)
	}
	return withTables(steps)
}

// hostPolicy is the name of what a network's first plugin asks of the host's firewall.
func hostPolicy(a netsetup.Attachment) string {
	switch {
	case a.Masquerade:
		return "masquerade"
	case a.Routed:
		return "forward"
	}
	return "macspoofchk"
}

// withTables puts in front what makes the firewall tables that the commands need.
func withTables(steps []Step) ([]Step, error) {
	var all []netsetup.Command
	for _, s := range steps {
		all = append(all, s.Commands...)
	}
	missing, err := policy.Tables(all)
	if len(missing) > 0 {
		steps = append([]Step{{"firewall", missing}}, steps...)
	}
	return steps, err
}

// Ordered are the commands of steps in the order in which they are to be run: the host's, and
// then those inside, of which some have to come before the interface is up.
func Ordered(steps []Step) []netsetup.Command {
	var host, inside, early []netsetup.Command
	for _, s := range steps {
		for _, c := range s.Commands {
			switch {
			case !c.Inside:
				host = append(host, c)
			case c.Early:
				early = append(early, c)
			default:
				inside = append(inside, c)
			}
		}
	}
	up := slices.IndexFunc(inside, func(c netsetup.Command) bool { return strings.HasSuffix(c.Line, " up") })
	return slices.Concat(host, slices.Insert(inside, max(up, 0), early...))
}
