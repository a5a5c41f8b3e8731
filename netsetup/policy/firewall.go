package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// KindFirewall has in Name "INGRESS@DEVICE>CHAIN": the ingress policy of a network's device,
// and the chain of the administrator's. IfName has the device too if it outlives the container.
const KindFirewall = "firewall"

// firewall lets a network's packets through nsinit's own table, keeps networks apart, and asks
// a chain of the administrator's first. Its configuration is that of the CNI plugin of the same
// name. What tables of others drop stays dropped; it is told (Foreign).
type firewall struct{ opt Options }

// Firewall is CNI's firewall.
func Firewall(opt Options) netsetup.Policy { return firewall{opt} }

const ingressIsolated = "isolated"

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (firewall) Plan(p netsetup.Plan, plugin netsetup.Plugin) (any, error) {
	conf, err := netsetup.ReadFirewall(p, plugin)
	for _, c := range newTable().chains(false) {
		if c.Name == conf.AdminChain {
			err = errors.Join(err, fmt.Errorf("%s: iptablesAdminChainName: %s: a chain of nsinit's own; another name", p.Source, c.Name))
		}
	}
	return &conf, err
}

// Attach lets what a's device carries through, as far as the policy says.
func (f firewall) Attach(ctx context.Context, h *netsetup.Host, _ *netsetup.NetNS, p netsetup.Plan, conf any, a *netsetup.Attachment, record netsetup.Recorder) error {
	c, ok := conf.(*netsetup.FirewallConf)
	if !ok {
		return fmt.Errorf("no plan: %T", conf)
	}
	o, device := guardObject(c, *a, p.Owner)
	switch {
	case device == "" && c.Ingress == "open":
		return nil // nothing of the host lies on its way
	case device == "":
		return fmt.Errorf("ingressPolicy %s: network %s: strategy %s has no device on the host; leave it out", c.Ingress, a.Network, a.Strategy)
	}
	if err := record(o); err != nil {
		return fmt.Errorf("%s: record: %w", o.Name, err)
	}
	e := elementsFor(o)
	made, err := addElements(ctx, a.Network, e, f.opt)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) { // the device had another chain
		if err = removeElements(ctx, device, []elementChange{remove(newTable().guard.admin, nameElement(device))}); err == nil {
			made, err = addElements(ctx, a.Network, e, f.opt)
		}
	}
	if err != nil {
		return err
	}
	if c.Ingress == ingressIsolated && a.Bridge != "" {
		if err := isolatePort(a); err != nil {
			return err
		}
	}
	if made {
		warnForeign(ctx, h, device)
	}
	return nil
}

func guardObject(c *netsetup.FirewallConf, a netsetup.Attachment, owner string) (o netsetup.Object, device string) {
	device = a.HostIf
	if a.Bridge != "" {
		device = a.Bridge
	}
	o = netsetup.Object{Kind: KindFirewall, Network: a.Network, Name: c.Ingress + "@" + device + ">" + c.AdminChain, Owner: owner}
	if a.Bridge != "" {
		o.IfName = device
	}
	return o, device
}

// isolatePort has the bridge itself keep its containers apart: frames within a bridge come by
// the table only where br_netfilter shows them to it.
func isolatePort(a *netsetup.Attachment) error {
	rt, err := openRoutes()
	if err != nil {
		return err
	}
	defer rt.Close()
	link, err := rt.LinkByName(a.HostIf)
	if err == nil {
		err = rt.LinkSetIsolated(link, true)
	}
	if err != nil {
		return fmt.Errorf("%s: isolate: %w", a.HostIf, err)
	}
	port := netsetup.BridgePort{}
	if a.Port != nil {
		port = *a.Port
	}
	port.Isolated = true
	a.Port = &port
	return nil
}

// Check returns what of the policy the table doesn't have.
func (firewall) Check(_ context.Context, _ *netsetup.Host, _ *netsetup.NetNS, p netsetup.Plan, conf any, a netsetup.Attachment) ([]netsetup.Difference, error) {
	c, ok := conf.(*netsetup.FirewallConf)
	if !ok {
		return nil, fmt.Errorf("no plan: %T", conf)
	}
	o, device := guardObject(c, a, p.Owner)
	if device == "" {
		return nil, nil
	}
	return checkObjects([]netsetup.Object{o})
}

// A guarded device is what a KindFirewall says.
type guarded struct{ ingress, device, chain string }

func parseGuarded(name string) (g guarded, ok bool) {
	ingress, rest, ok1 := strings.Cut(name, "@")
	at := strings.LastIndexByte(rest, '>')
	if !ok1 || at < 1 || rest[at+1:] == "" {
		return g, false
	}
	return guarded{ingress, rest[:at], rest[at+1:]}, true
}

func (e *elements) takeFirewall(o netsetup.Object) {
	g, ok := parseGuarded(o.Name)
	if !ok {
		return
	}
	e.devices = addName(e.devices, g.device)
	admin := nftables.SetElement{Key: nameKey(g.device), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: g.chain}}
	if !slices.ContainsFunc(e.admin, func(el nftables.SetElement) bool { return string(el.Key) == string(admin.Key) }) {
		e.admin = append(e.admin, admin)
	}
	if g.ingress == "open" {
		return
	}
	e.restricted = addName(e.restricted, g.device)
	e.inside = addPair(e.inside, g.device)
	if g.ingress == ingressIsolated {
		e.isolated = addPair(e.isolated, g.device)
	}
}

func addPair(list []nftables.SetElement, name string) []nftables.SetElement {
	pair := pairElement(name)
	if slices.ContainsFunc(list, func(e nftables.SetElement) bool { return string(e.Key) == string(pair.Key) }) {
		return list
	}
	return append(list, pair)
}

// guarded are the elements of a device that goes with its container. A bridge stays in the
// sets: it may have others.
func (t table) guarded(o netsetup.Object) []elementChange {
	g, ok := parseGuarded(o.Name)
	if !ok || o.IfName != "" {
		return nil
	}
	return append(t.guard.of(g.device), remove(t.devices, nameElement(g.device)))
}

// The part of the table that keeps networks apart.

type guardSets struct {
	restricted *nftables.Set // devices between which nothing is forwarded
	inside     *nftables.Set // each of them with itself
	isolated   *nftables.Set // those with which not even that is
	admin      *nftables.Set // device : the administrator's chain
}

func newGuardSets(names func(string) *nftables.Set, pairs func(string) *nftables.Set) guardSets {
	g := guardSets{
		restricted: names("restricted"), inside: pairs("inside"), isolated: pairs("isolated"), admin: names("admin_chains"),
	}
	g.admin.IsMap, g.admin.DataType = true, nftables.TypeVerdict
	return g
}

func (g guardSets) all() []*nftables.Set {
	return []*nftables.Set{g.restricted, g.inside, g.isolated, g.admin}
}

// of are the elements that a device can have.
func (g guardSets) of(device string) []elementChange {
	return []elementChange{
		remove(g.admin, nameElement(device)), remove(g.restricted, nameElement(device)),
		remove(g.isolated, pairElement(device)), remove(g.inside, pairElement(device)),
	}
}

// guardRules come first in the forward hook.
func (t table) guardRules() []ruleSpec {
	ask := func(key expr.MetaKey) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: key, Register: first},
			&expr.Lookup{SourceRegister: first, DestRegister: 0, IsDestRegSet: true, SetName: t.guard.admin.Name, SetID: t.guard.admin.ID},
		}
	}
	outsideOf := samePort(t.guard.inside)
	outsideOf[len(outsideOf)-1] = lookup(t.guard.inside, true)
	return []ruleSpec{
		{comment: "ingress policy isolated", exprs: join(samePort(t.guard.isolated), verdict(expr.VerdictDrop))},
		{comment: "ingress policy", exprs: join(cameBy(t.guard.restricted), leavesBy(t.guard.restricted), outsideOf, verdict(expr.VerdictDrop))},
		{exprs: ask(expr.MetaKeyIIFNAME)},
		{exprs: ask(expr.MetaKeyOIFNAME)},
	}
}

// adminChains are those that e's elements jump to. They are made with the table, and their rules are
// the administrator's.
func (e elements) adminChains() []string {
	var names []string
	for _, el := range e.admin {
		if !slices.Contains(names, el.VerdictData.Chain) {
			names = append(names, el.VerdictData.Chain)
		}
	}
	return names
}
