package chain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// externalPolicy is a further plugin of a list that is run.
type externalPolicy struct{ kind string }

// externalPolicyOf is the policy of a type that says that its plugin is run, else nil.
func externalPolicyOf(kind string) netsetup.Policy {
	if name, ok := strings.CutPrefix(kind, netsetup.ExternalPrefix); ok {
		return externalPolicy{name}
	}
	return nil
}

// planExternal tells as what plugin i of the list is planned, and whether it can be run.
func planExternal(p *netsetup.Plan, i int, plugin netsetup.Plugin) (netsetup.Plugin, error) {
	kind := external(plugin, PolicyOf(plugin.Type, policy.Options{}) != nil)
	if kind == plugin.Type {
		return plugin, nil
	}
	native := []string{"bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"}
	native = slices.DeleteFunc(native, func(t string) bool { return PolicyOf(t, policy.Options{}) == nil })
	err := mustFind(p.Request, fmt.Sprintf("plugins[%d].type", i), plugin.Type, native)
	return netsetup.Plugin{Type: kind, Raw: plugin.Raw}, err
}

// Plan leaves the configuration to the plugin.
func (e externalPolicy) Plan(p netsetup.Plan, plugin netsetup.Plugin) (any, error) {
	if _, err := configOf(p, plugin.Raw); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", p.Network.Source, e.kind, err)
	}
	return plugin.Raw, nil
}

// Attach finishes the interface, which a plugin of this place counts on, and runs it.
func (e externalPolicy) Attach(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, conf any, a *netsetup.Attachment, record netsetup.Recorder) error {
	if !a.Configured {
		if err := netsetup.ConfigureIn(target, *a); err != nil {
			return err
		}
		a.Configured = true
	}
	prev, err := resultOf(p, *a, target)
	if err != nil {
		return err
	}
	res, err := job{p, e.kind, conf.([]byte), target, record, h.Warn}.add(ctx, &prev)
	if err != nil {
		return err
	}
	// It may have changed the interface; what it is made of stays.
	changed := res.Attachment(a.Network, a.IfName)
	if changed.MAC != "" {
		a.MAC = changed.MAC
	}
	if changed.MTU != 0 {
		a.MTU = changed.MTU
	}
	a.DNS = res.DNS
	return saveResult(p, target, res)
}

// Check asks the plugin.
func (e externalPolicy) Check(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, conf any, a netsetup.Attachment) ([]netsetup.Difference, error) {
	return job{p, e.kind, conf.([]byte), target, nil, h.Warn}.check(ctx, a)
}

// Commands can't tell what the plugin does.
func (externalPolicy) Commands(netsetup.Plan, any, netsetup.Attachment) []netsetup.Command {
	return nil
}
