// Package chain runs a network's plugins for one container, in the order of its
// list: addresses, the strategy that makes the interface, masquerading, and the
// policies behind it. It is the one place that knows all of them.
package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// PolicyOf finds a policy by its CNI plugin type, nil if nsinit has none of the name.
// A switch and not a map: a map would be filled at each start.
func PolicyOf(kind string, opts policy.Options) netsetup.Policy {
	switch kind {
	case "firewall":
		return policy.Firewall(opts)
	case "portmap":
		return policy.Portmap(opts)
	case "bandwidth":
		return netsetup.BandwidthPolicy()
	case "loopback":
		return netsetup.LoopbackPolicy()
	case "sbr":
		return netsetup.SBRPolicy()
	case "tuning":
		return netsetup.TuningPolicy()
	case "vrf":
		return netsetup.VRFPolicy()
	}
	return externalPolicyOf(kind)
}

// Plan validates all requests of one container together, with all plugins of their
// networks, and returns every fault, a line each. Nothing is asked of the kernel.
func Plan(reqs []netsetup.Request) ([]netsetup.Plan, error) {
	reqs, missing := externals(reqs)
	plans, err := netsetup.PlanAll(reqs)
	faults := []error{missing, err}
	for i := range plans {
		faults = append(faults, planPolicies(&plans[i]))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return plans, nil
}

func planPolicies(p *netsetup.Plan) error {
	if p.Network == nil || len(p.Network.Plugins) == 0 {
		return nil
	}
	faults := []error{planIPAM(*p)}
	for i, plugin := range p.Network.Plugins[1:] {
		plugin, err := planExternal(p, i+1, plugin)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		conf, err := PolicyOf(plugin.Type, policy.Options{}).Plan(*p, plugin)
		faults = append(faults, err)
		p.Policies = append(p.Policies, netsetup.PlannedPolicy{Plugin: plugin, Conf: conf})
	}
	return errors.Join(faults...)
}

// Attach connects target to the network of p: the host half of all its plugins.
// p.Owner is the container. What it makes dies with target or is recorded first, so
// that after an error the caller undoes the records.
func Attach(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, opts policy.Options, record netsetup.Recorder) (a netsetup.Attachment, err error) {
	return AttachPlan(ctx, h, target, &p, opts, record)
}

// AttachPlan is Attach, and leaves in p what an address plugin that was run has given.
func AttachPlan(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, plan *netsetup.Plan, opts policy.Options, record netsetup.Recorder) (a netsetup.Attachment, err error) {
	t := trace(h)
	if err := keepResult(*plan, record); err != nil {
		return a, err
	}
	if strings.HasPrefix(plan.Strategy, netsetup.ExternalPrefix) {
		a, err = attachExternal(ctx, h, target, *plan, record)
	} else {
		a, err = connect(ctx, h, t, target, plan, record)
	}
	if err != nil {
		return a, err
	}
	p := *plan
	t.strategy(p, a)
	if err := hostPolicies(ctx, h, t, p, a, opts, record); err != nil {
		return a, err
	}
	for _, planned := range p.Policies {
		if err := PolicyOf(planned.Plugin.Type, opts).Attach(ctx, h, target, p, planned.Conf, &a, record); err != nil {
			return a, fmt.Errorf("%s: %w", planned.Plugin.Type, err)
		}
		t.policy(p, planned, a)
	}
	return a, nil
}

// hostPolicies are what the interface's own plugin asks of the host.
func hostPolicies(ctx context.Context, h *netsetup.Host, t *tracer, p netsetup.Plan, a netsetup.Attachment, opts policy.Options, record netsetup.Recorder) (err error) {
	t.look(a, opts)
	switch {
	case a.Masquerade:
		err = policy.Masquerade(ctx, h, a, p.Owner, opts, record)
	case a.Routed:
		err = policy.Forward(ctx, h, a, p.Owner, opts, record)
	}
	if err == nil && a.Port != nil && a.Port.SpoofCheck {
		err = policy.SpoofCheck(ctx, a, p.Owner, opts, record)
	}
	t.hostPolicy(a)
	return err
}

// Reserve takes what of the host p's container asks for by number, its ports, before
// anything of the network is made.
func Reserve(ctx context.Context, p netsetup.Plan, opts policy.Options, record netsetup.Recorder) error {
	return policy.Reserve(ctx, p, opts, record)
}

// UndoOrder returns objects, oldest first, in the order in which they are undone: the
// interface before all that holds for it, since a container that still has it would be
// without its rules; then the newest first, so that an address is the last to go.
func UndoOrder[E any](objects []E, kindOf func(E) string) []E {
	list := slices.Clone(objects)
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b E) int {
		return first(kindOf(b)) - first(kindOf(a))
	})
	return list
}

func first(kind string) int {
	if kind == netsetup.KindInterface {
		return 1
	}
	return 0
}

// Undo removes recorded objects of any kind, whoever recorded them, in this order, and
// goes on after an error. One that is gone is no error. h may be nil if all are leases.
func Undo(ctx context.Context, h *netsetup.Host, objects ...netsetup.Object) error {
	var errs []error
	var rules []netsetup.Object // of the firewall, one after another: they go together
	flush := func() {
		errs = append(errs, policy.Undo(ctx, rules...))
		rules = nil
	}
	for _, o := range objects {
		if policy.Owns(o.Kind) {
			rules = append(rules, o)
			continue
		}
		flush()
		if err := undo(ctx, h, o); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err))
		}
	}
	flush()
	return errors.Join(errs...)
}

func undo(ctx context.Context, h *netsetup.Host, o netsetup.Object) error {
	switch o.Kind {
	case "lease":
		return ipam.Undo(o)
	case KindPlugin:
		return undoPlugin(ctx, o)
	case KindResult:
		return undoResult(o)
	}
	return netsetup.Undo(ctx, h, o)
}

// Reload puts the firewall's rules of all containers back after the host's ruleset was
// flushed, from their records (opts.Recorded) alone.
func Reload(ctx context.Context, h *netsetup.Host, opts policy.Options) error {
	return policy.Reload(ctx, h, opts)
}
