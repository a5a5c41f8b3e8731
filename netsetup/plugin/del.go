package plugin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/cni"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// del takes back what ADD made. It goes on after an error, and a second one finds
// nothing to do.
func (p *Plugin) del(ctx context.Context, c *call) error {
	r, err := p.find(c)
	if err != nil {
		return err
	}
	if r != nil {
		return p.detach(ctx, r, c.netns)
	}
	p.prune(p.recordDir(c)) // of an end that was killed
	if c.kind == chained {
		return nil
	}
	// Made by another tool, or of a boot before: what can be told without a record.
	return errors.Join(p.withoutRecord(c), p.release(c))
}

// detach undoes the record, unless netns is told and can be no container's.
func (p *Plugin) detach(ctx context.Context, r *record, netns string) error {
	if netns != "" {
		target, err := openForeign(netns)
		if err = ownOnly(err); err != nil {
			r.close()
			return err
		}
		if target != nil {
			_ = target.Close()
		}
	}
	return p.end(ctx, r, netns)
}

// ownOnly leaves of the faults of a namespace the one that DEL has, too.
func ownOnly(err error) error {
	if errors.Is(err, errOwn) {
		return cni.Errorf(cni.CodeInvalidNetNS, "CNI_NETNS: %v", err)
	}
	return nil
}

// end undoes the record, and removes it if that worked.
func (p *Plugin) end(ctx context.Context, r *record, netns string) error {
	if err := p.undo(ctx, r, netns); err != nil {
		r.close()
		return err
	}
	published, err := r.publishes()
	err = errors.Join(err, r.remove())
	p.prune(r.dir)
	if err != nil || !published {
		return err
	}
	return p.publishAgain(ctx, r)
}

// publishAgain has the ports of a container that is on several networks, each of which publishes them, lead to it by
// one that is left.
func (p *Plugin) publishAgain(ctx context.Context, ended *record) error {
	id, _, _ := strings.Cut(filepath.Base(filepath.Dir(ended.dir)), "@")
	left := slices.ContainsFunc(p.places(""), func(at place) bool { return at.id == id && at.plugin == filepath.Base(ended.dir) })
	if !left {
		return nil
	}
	return policy.Reload(ctx, nil, p.options())
}

// undo undoes the objects of a record. The namespace may have got another path, netns,
// since they were recorded; "" if nobody says so.
func (p *Plugin) undo(ctx context.Context, r *record, netns string) error {
	list, err := r.objects()
	if err != nil || len(list) == 0 {
		return err
	}
	h, err := netsetup.OpenHost(p.Warn)
	if err != nil {
		return err
	}
	defer h.Close()
	list = chain.UndoOrder(list, func(o netsetup.Object) string { return o.Kind })
	for i, o := range list {
		if o.Kind == netsetup.KindInterface && netns != "" {
			list[i].Name = netns
		}
	}
	return chain.Undo(ctx, h, list...)
}

// withoutRecord removes an interface by its name alone.
func (p *Plugin) withoutRecord(c *call) error {
	if c.kind != network || c.conf.Type == "host-device" || c.netns == "" {
		return nil
	}
	target, err := openForeign(c.netns)
	if err != nil {
		return ownOnly(err)
	}
	defer target.Close()
	if c.conf.Type == "loopback" {
		return netsetup.LowerLoopback(target)
	}
	return netsetup.Detach(target, netsetup.Attachment{Strategy: c.conf.Type, IfName: c.ifName})
}

// release gives back leases by their owner.
func (p *Plugin) release(c *call) error {
	plan, err := netsetup.PlanAddresses(c.request())
	if err != nil || plan.IPAM == "" {
		return nil //nolint:nilerr // a configuration that ADD has refused has no leases
	}
	return ipam.Release(plan.DataDir, c.conf.Name, c.id, c.ifName)
}

// gc takes back what attachments of the network have that the runtime doesn't know.
func (p *Plugin) gc(ctx context.Context, c *call) error {
	var errs []error
	for _, at := range p.places(c.conf.Name) {
		if at.plugin != c.conf.Type || c.valid(at.id, at.ifName) {
			continue
		}
		r, err := p.openRecord(at.dir)
		if err == nil {
			err = p.detach(ctx, r, "")
		}
		errs = append(errs, err)
	}
	p.pruneAll(c.conf.Name)
	if plan, err := netsetup.PlanAddresses(c.request()); err == nil && c.kind != chained {
		errs = append(errs, chain.Delegate(ctx, "GC", plan, c.raw), p.collectLeases(c, plan))
	}
	return errors.Join(errs...)
}

// collectLeases gives back what is leased to nobody whom the runtime knows: by
// host-local for another maker's plugin, or by another tool. nsinit's own containers
// may be on the network, and the runtime doesn't know them.
func (p *Plugin) collectLeases(c *call, plan netsetup.Plan) error {
	if !netsetup.NativeIPAM(plan.IPAM) {
		return nil
	}
	leases, err := ipam.Leased(plan.DataDir, c.conf.Name)
	if len(leases) == 0 {
		return err
	}
	recorded, recordErr := p.options().Recorded() // after the leases: a record comes before its lease
	if err := errors.Join(err, recordErr); err != nil {
		return err
	}
	var errs []error
	for _, l := range leases {
		if !c.valid(l.Owner, l.IfName) && !slices.ContainsFunc(recorded, func(o netsetup.Object) bool {
			return o.Kind == l.Kind && o.Network == l.Network && o.Name == l.Name && o.Owner == l.Owner
		}) {
			errs = append(errs, ipam.Undo(l))
		}
	}
	return errors.Join(errs...)
}

// Collect ends the records of attachments whose namespace is gone, and of an ADD or a
// DEL that was killed. It returns what it ended, as NETWORK/ID@IFNAME/TYPE.
func (p *Plugin) Collect(ctx context.Context) (ended []string, err error) {
	var errs []error
	for _, at := range p.places("") {
		r, err := p.openRecord(at.dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a, done, err := r.load()
		if err != nil || done && lives(a) {
			errs = append(errs, err) // what can't be read is left to the runtime's DEL
			r.close()
			continue
		}
		if err := p.end(ctx, r, ""); err != nil {
			errs = append(errs, err)
			continue
		}
		name, _ := filepath.Rel(p.dir(), at.dir)
		ended = append(ended, name)
	}
	p.pruneAll("")
	return ended, errors.Join(errs...)
}

// lives tells whether the namespace of a is still where it was.
func lives(a attached) bool {
	target, err := netsetup.OpenNetNS(a.NetNS)
	if err != nil {
		return false
	}
	defer target.Close()
	inode, err := target.Inode()
	return err == nil && inode == a.Inode
}

// check compares what ADD made with what the kernel has.
func (p *Plugin) check(ctx context.Context, c *call) error {
	if c.kind == address {
		return p.checkLease(c)
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	a, err := p.attached(c)
	if err != nil {
		return err
	}
	target, h, err := p.namespaces(c)
	if err != nil {
		return err
	}
	defer target.Close()
	defer h.Close()
	last := prev.Attachment(c.conf.Name, c.ifName)
	found, err := p.compare(ctx, c, h, target, a.Attachment.After(last))
	if err != nil {
		return err
	}
	if a.Attachment.Strategy != "loopback" {
		found = append(found, changed(last, a.Attachment)...)
	}
	if len(found) == 0 {
		return nil
	}
	var lines []string
	for _, d := range found {
		lines = append(lines, d.String())
	}
	return cni.Errorf(cni.CodeInternal, "%s", strings.Join(lines, "; "))
}

// attached is what the finished ADD of c recorded.
func (p *Plugin) attached(c *call) (a attached, err error) {
	r, err := p.find(c)
	done := false
	if r != nil {
		a, done, err = r.load()
		r.close()
	}
	if err == nil && !done {
		err = noRecord(c)
	}
	return a, err
}

func noRecord(c *call) error {
	return cni.Errorf(cni.CodeUnknownContainer, "%s of container %s: not attached by nsinit's %s", c.ifName, c.id, c.conf.Type)
}

func (p *Plugin) compare(ctx context.Context, c *call, h *netsetup.Host, target *netsetup.NetNS, a netsetup.Attachment) ([]netsetup.Difference, error) {
	if c.kind == chained {
		pol := chain.PolicyOf(c.conf.Type, p.options())
		plan := netsetup.Plan{Request: c.request()}
		conf, err := pol.Plan(plan, plan.Network.Plugins[0])
		if err != nil {
			return nil, invalid(err)
		}
		return pol.Check(ctx, h, target, plan, conf, a)
	}
	plans, err := chain.Plan([]netsetup.Request{c.request()})
	if err != nil {
		return nil, invalid(err)
	}
	return chain.Check(ctx, h, target, plans[0], a, p.options())
}

// changed compares what the runtime remembers with what was made.
func changed(prev, a netsetup.Attachment) (found []netsetup.Difference) {
	for _, address := range prev.Addresses {
		if !slices.Contains(a.Addresses, address) {
			found = append(found, netsetup.Difference{Object: a.IfName + ": address", Want: address.String(), Got: fmt.Sprint(a.Addresses)})
		}
	}
	return found
}

// status tells whether an ADD could work.
func (p *Plugin) status(ctx context.Context, c *call) error {
	h, err := netsetup.OpenHost(p.Warn)
	if err != nil {
		return cni.Errorf(cni.CodeUnavailable, "%v", err)
	}
	defer h.Close()
	plan, err := p.planStatus(c)
	if err != nil {
		return invalid(err)
	}
	if c.kind == chained {
		return nil
	}
	if err := netsetup.Available(h, plan); c.kind == network && err != nil {
		return cni.Errorf(cni.CodeUnavailable, "%s", oneLine(err))
	}
	if err := chain.Delegate(ctx, "STATUS", plan, c.raw); err != nil {
		return err
	}
	if err := ipam.Available(plan); err != nil {
		return cni.Errorf(cni.CodeUnavailable, "%v", err)
	}
	return nil
}

// planStatus reads the whole of the plugin's configuration. What a runtime asks for a
// container it isn't told yet.
func (p *Plugin) planStatus(c *call) (netsetup.Plan, error) {
	switch c.kind {
	case chained:
		plan := netsetup.Plan{Request: c.request()}
		_, err := chain.PolicyOf(c.conf.Type, p.options()).Plan(plan, plan.Network.Plugins[0])
		return plan, err
	case address:
		return netsetup.PlanAddresses(c.request())
	}
	plans, err := netsetup.PlanAll([]netsetup.Request{c.request()})
	if err != nil {
		return netsetup.Plan{}, err
	}
	return plans[0], nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
