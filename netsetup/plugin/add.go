package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/cni"
)

func (p *Plugin) add(ctx context.Context, c *call) (cni.Result, error) {
	switch c.kind {
	case address:
		return p.lease(ctx, c)
	case chained:
		return p.change(ctx, c)
	}
	return p.attach(ctx, c)
}

// begun opens what an ADD works on: a record without remains of an earlier one that
// was killed.
func (p *Plugin) begun(ctx context.Context, c *call) (*record, error) {
	r, err := p.open(c)
	if err != nil {
		return nil, err
	}
	_, done, err := r.load()
	switch {
	case err != nil:
	case done && c.conf.Type == "loopback": // lo can be up twice
	case done:
		err = fmt.Errorf("%s of container %s is attached already; DEL comes first", c.ifName, c.id)
	default:
		err = p.undo(ctx, r, c.netns)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// attach makes the interface of a network.
func (p *Plugin) attach(ctx context.Context, c *call) (result cni.Result, err error) {
	plans, err := chain.Plan([]netsetup.Request{c.request()})
	if err != nil {
		return result, invalid(err)
	}
	plan := plans[0]
	target, h, err := p.namespaces(c)
	if err != nil {
		return result, err
	}
	defer target.Close()
	defer h.Close()
	r, err := p.begun(ctx, c)
	if err != nil {
		return result, err
	}
	a, err := chain.AttachPlan(ctx, h, target, &plan, p.options(), r.journal)
	if err == nil {
		err = netsetup.ConfigureIn(target, a)
	}
	if err == nil {
		result, err = resultOf(c, h, &plan, a)
	}
	if err == nil && a.Strategy == "loopback" && len(c.conf.PrevResult) > 0 {
		result, err = c.previous() // another plugin's interface is what the list is about
		result = result.To(c.version())
	}
	if err == nil {
		err = r.finish(c, target, a)
	}
	if err != nil {
		return result, errors.Join(err, p.end(ctx, r, c.netns))
	}
	r.close()
	return result, nil
}

// change has a policy change an interface that others have made.
func (p *Plugin) change(ctx context.Context, c *call) (result cni.Result, err error) {
	if result, err = c.previous(); err != nil {
		return result, err
	}
	pol := chain.PolicyOf(c.conf.Type, p.options())
	plan := netsetup.Plan{Request: c.request()}
	conf, err := pol.Plan(plan, plan.Network.Plugins[0])
	if err != nil {
		return result, invalid(err)
	}
	plan.Policies = []netsetup.PlannedPolicy{{Plugin: plan.Network.Plugins[0], Conf: conf}}
	target, h, err := p.namespaces(c)
	if err != nil {
		return result, err
	}
	defer target.Close()
	defer h.Close()
	r, err := p.begun(ctx, c)
	if err != nil {
		return result, err
	}
	a := result.Attachment(c.conf.Name, c.ifName)
	err = pol.Attach(ctx, h, target, plan, conf, &a, r.journal)
	if err == nil {
		err = configurePolicies(target, a)
	}
	if err == nil {
		err = r.finish(c, target, a)
	}
	if err != nil {
		return result, errors.Join(err, p.end(ctx, r, c.netns))
	}
	r.close()
	tuned(&result, c.ifName, a.Tuning)
	return result.To(c.version()), nil
}

// configurePolicies does the container half.
func configurePolicies(target *netsetup.NetNS, a netsetup.Attachment) error {
	return target.Inside(func(in *netsetup.Inside) error {
		return netsetup.ConfigurePolicies(in, a)
	})
}

// tuned says in the result what tuning changed of it.
func tuned(result *cni.Result, ifName string, t *netsetup.Tuning) {
	if t == nil {
		return
	}
	for i := range result.Interfaces {
		dev := &result.Interfaces[i]
		if dev.Sandbox == "" || dev.Name != ifName {
			continue
		}
		if t.MAC != "" {
			dev.MAC = t.MAC
		}
		if t.MTU != 0 {
			dev.MTU = t.MTU
		}
	}
}

// previous is the result of the plugin before, which a policy has to have.
func (c *call) previous() (cni.Result, error) {
	if len(c.conf.PrevResult) == 0 {
		return cni.Result{}, cni.Errorf(cni.CodeInvalidConfig, "%s: must be called as a chained plugin: prevResult is missing", c.conf.Type)
	}
	r, err := cni.ParseResult(c.conf.PrevResult)
	if err != nil {
		return r, cni.Errorf(cni.CodeDecoding, "prevResult: %v", err)
	}
	return r, nil
}

// namespaces opens the container's and the host's.
func (p *Plugin) namespaces(c *call) (*netsetup.NetNS, *netsetup.Host, error) {
	target, err := c.openNetNS()
	if err != nil {
		return nil, nil, err
	}
	h, err := netsetup.OpenHost(p.Warn)
	if err != nil {
		return nil, nil, errors.Join(err, target.Close())
	}
	return target, h, nil
}

func invalid(err error) error { return cni.Errorf(cni.CodeInvalidConfig, "%s", oneLine(err)) }

// finish says that ADD is done.
func (r *record) finish(c *call, target *netsetup.NetNS, a netsetup.Attachment) error {
	inode, err := target.Inode()
	if err != nil {
		return err
	}
	return r.save(attached{Attachment: a, NetNS: c.netns, Inode: inode})
}
