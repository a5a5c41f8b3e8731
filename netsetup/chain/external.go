package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

// Plugins that nsinit doesn't have, or isn't to take, are run: as CNI's runtimes run
// them, but with a record that is written before. A network whose first plugin is run
// has the strategy exec:TYPE, a further one the type exec:TYPE.

// external names what p is planned as: exec:TYPE if its program is run, else its type.
func external(p netsetup.Plugin, native bool) string {
	if native && !netsetup.RunsPlugin(p) && !strings.HasPrefix(p.Type, netsetup.ExternalPrefix) {
		return p.Type
	}
	return netsetup.ExternalPrefix + p.Type
}

// externals gives the requests whose first plugin is run the strategy that says so.
func externals(reqs []netsetup.Request) ([]netsetup.Request, error) {
	reqs = slices.Clone(reqs)
	var faults []error
	for i := range reqs {
		r := &reqs[i]
		if r.Network == nil || len(r.Network.Plugins) == 0 {
			continue
		}
		first := r.Network.Plugins[0]
		_, unknown := netsetup.StrategyOf(first.Type)
		if kind := external(first, unknown == nil); kind != first.Type {
			r.Strategy = kind
			faults = append(faults, mustFind(*r, "plugins[0].type", first.Type, netsetup.Strategies()))
		}
	}
	return reqs, errors.Join(faults...)
}

// mustFind refuses a plugin whose program isn't there, before anything is made.
func mustFind(r netsetup.Request, place, kind string, native []string) error {
	_, err := cni.Find(kind, pluginDirs(r))
	switch {
	case err == nil && cni.AtLeast(r.Network.CNIVersion, "0.3.0"):
		return nil
	case err == nil:
		return fmt.Errorf("%s: cniVersion: %q: plugin %s would answer in a form of before 0.3.0; \"0.3.1\" or later", r.Network.Source, r.Network.CNIVersion, kind)
	}
	return fmt.Errorf("%s: %s: %w; nsinit itself has %s", r.Network.Source, place, err, strings.Join(native, ", "))
}

func pluginDirs(r netsetup.Request) []string {
	if len(r.Runtime.PluginDirs) > 0 {
		return r.Runtime.PluginDirs
	}
	if dirs := filepath.SplitList(os.Getenv("CNI_PATH")); len(dirs) > 0 {
		return dirs
	}
	return []string{cni.DefaultDir}
}

// runsPlugins tells whether a plugin of p's list is run, other than for addresses.
func runsPlugins(p netsetup.Plan) bool {
	return strings.HasPrefix(p.Strategy, netsetup.ExternalPrefix) ||
		slices.ContainsFunc(p.Policies, func(pp netsetup.PlannedPolicy) bool {
			return strings.HasPrefix(pp.Plugin.Type, netsetup.ExternalPrefix)
		})
}

// A job is a plugin that is run for one attachment.
type job struct {
	p      netsetup.Plan
	kind   string
	raw    []byte // its own object
	target *netsetup.NetNS
	record netsetup.Recorder
	warn   func(string)
}

// Delegate runs one command, STATUS or GC, of the address plugin of p, if that is a
// program, with the configuration config of p's first plugin.
func Delegate(ctx context.Context, command string, p netsetup.Plan, config []byte) error {
	if netsetup.NativeIPAM(p.IPAM) {
		return nil
	}
	dirs := pluginDirs(p.Request)
	path, err := cni.Find(p.IPAM, dirs)
	if err != nil {
		return err
	}
	_, err = cni.Invocation{Command: command, Args: argsOf(p.Runtime.Args), Dirs: dirs, Config: config}.Run(ctx, path, nil)
	return err
}

// add runs the plugin's ADD behind prev, nil for none.
func (j job) add(ctx context.Context, prev *cni.Result) (cni.Result, error) {
	dirs := pluginDirs(j.p.Request)
	path, err := cni.Find(j.kind, dirs)
	if err != nil {
		return cni.Result{}, err
	}
	sandbox, inode, err := sandboxOf(j.target)
	if err != nil {
		return cni.Result{}, err
	}
	k := keep{NetNS: sandbox, Inode: inode, Args: argsOf(j.p.Runtime.Args)}
	if k.Conf, err = configOf(j.p, j.raw); err != nil {
		return cni.Result{}, err
	}
	if prev != nil {
		if k.Prev, err = json.Marshal(prev.To(j.p.Network.CNIVersion)); err != nil {
			return cni.Result{}, err
		}
	}
	o, err := k.object(j.p, j.kind, dirs)
	if err == nil {
		err = j.record(o)
	}
	if err != nil {
		return cni.Result{}, fmt.Errorf("record: %w", err)
	}
	conf, err := withMember(k.Conf, "prevResult", k.Prev)
	if err != nil {
		return cni.Result{}, err
	}
	out, err := k.invocation(o, "ADD", conf).Run(ctx, path, j.warn)
	if err != nil {
		return cni.Result{}, err
	}
	res, err := cni.ParseResult(out)
	if err != nil {
		return res, fmt.Errorf("its answer: %w", err)
	}
	return res, nil
}

// attachExternal has the network's first plugin make the interface.
func attachExternal(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, record netsetup.Recorder) (netsetup.Attachment, error) {
	first := p.Network.Plugins[0]
	res, err := job{p, first.Type, first.Raw, target, record, h.Warn}.add(ctx, nil)
	if err != nil {
		return netsetup.Attachment{}, fmt.Errorf("plugin %s: %w", first.Type, err)
	}
	a := res.Attachment(p.Network.Name, p.IfName)
	a.Strategy, a.Configured, a.Gateways = p.Strategy, true, nil
	for _, r := range res.Routes {
		takeRoute(&a, res, r)
	}
	return a, saveResult(p, target, res)
}

// takeRoute notes a route of a result. One without a gateway has that of an address of
// its family.
func takeRoute(a *netsetup.Attachment, res cni.Result, r cni.Route) {
	gw := r.GW
	for _, ip := range res.IPs {
		if !gw.IsValid() && ip.Address.Addr().Is4() == r.Dst.Addr().Is4() {
			gw = ip.Gateway
		}
	}
	if r.Dst.Bits() == 0 && gw.IsValid() && r.Priority == 0 && r.Table == nil {
		a.Gateways = append(a.Gateways, gw)
		return
	}
	a.Routes = append(a.Routes, routeOf(r, gw))
}

func routeOf(r cni.Route, gw netip.Addr) netsetup.Route {
	to := netsetup.Route{Dst: r.Dst, Gateway: gw, MTU: r.MTU, Metric: r.Priority, AdvMSS: r.AdvMSS}
	if r.Table != nil {
		to.Table = *r.Table
	}
	if r.Scope != nil {
		to.Scope = *r.Scope
	}
	return to
}

// checkExternal asks the first plugin of a network, if it is run.
func checkExternal(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, a netsetup.Attachment) ([]netsetup.Difference, error) {
	if !strings.HasPrefix(p.Strategy, netsetup.ExternalPrefix) {
		return nil, nil
	}
	first := p.Network.Plugins[0]
	return job{p, first.Type, first.Raw, target, nil, h.Warn}.check(ctx, a)
}

// check runs the plugin's CHECK, where list and version have one.
func (j job) check(ctx context.Context, a netsetup.Attachment) ([]netsetup.Difference, error) {
	if j.p.Network.DisableCheck || !cni.AtLeast(j.p.Network.CNIVersion, "0.4.0") {
		return nil, nil
	}
	dirs := pluginDirs(j.p.Request)
	path, err := cni.Find(j.kind, dirs)
	if err != nil {
		return nil, err
	}
	k := keep{Args: argsOf(j.p.Runtime.Args)}
	if k.NetNS, k.Inode, err = sandboxOf(j.target); err != nil {
		return nil, err
	}
	if k.Conf, err = configOf(j.p, j.raw); err != nil {
		return nil, err
	}
	o, err := k.object(j.p, j.kind, dirs)
	if err != nil {
		return nil, err
	}
	prev, ok := cachedResult(o)
	if !ok {
		res, err := resultOf(j.p, a, j.target)
		if err != nil {
			return nil, err
		}
		if prev, err = json.Marshal(res.To(j.p.Network.CNIVersion)); err != nil {
			return nil, err
		}
	}
	conf, err := withMember(k.Conf, "prevResult", prev)
	if err != nil {
		return nil, err
	}
	if _, err = k.invocation(o, "CHECK", conf).Run(ctx, path, j.warn); err == nil {
		return nil, nil
	}
	if said, ok := errors.AsType[*cni.Error](err); ok {
		return []netsetup.Difference{{Object: a.IfName, Want: "what " + j.kind + " made", Got: said.Error()}}, nil
	}
	return nil, err
}
