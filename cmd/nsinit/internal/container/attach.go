package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
	"golang.org/x/sys/unix"
)

// lockObjects locks the container's journal: whoever connects a running container, or undoes what it has, has it alone.
// The record's own lock is a foreground run's from its start to its end.
func (c *record) lockObjects() (*lock, error) {
	return lockFile(c.path("objects"), unix.LOCK_EX)
}

// A connection is one change of the networks of a running container.
type connection struct {
	*Runtime
	rec   *record
	lock  *lock
	netns *netsetup.NetNS
	net   *netsetup.Host
}

// connect opens a running container whose networks are to be changed.
func (r *Runtime) connect(id string) (*connection, error) {
	rec, err := r.open(id)
	if err != nil {
		return nil, err
	}
	c := &connection{Runtime: r, rec: rec}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *connection) open() (err error) {
	if c.lock, err = c.rec.lockObjects(); errors.Is(err, os.ErrNotExist) {
		return &missingError{c.rec.id()}
	} else if err != nil {
		return err
	}
	// Only now: it may have ended, or been connected, while we waited.
	if err := c.rec.load(); err != nil {
		return err
	}
	if c.netns, err = c.rec.openNetNS(); err != nil {
		return err
	}
	if c.rec.state.Foreign {
		return fmt.Errorf("%q: its network namespace is not its own, but the host's or one that it joined; connect the container that owns it", c.rec.id())
	}
	c.net, err = netsetup.OpenHost(c.warn)
	return err
}

func (c *connection) close() (err error) {
	if c.netns != nil {
		err = c.netns.Close()
	}
	if c.net != nil {
		err = errors.Join(err, c.net.Close())
	}
	c.lock.Unlock()
	return err
}

// AttachNetwork connects the running container id to one more network. Its /etc/hosts and /etc/resolv.conf stay as they
// are. After an error nothing of it is left.
func (r *Runtime) AttachNetwork(ctx context.Context, id string, req netsetup.Request, noForwarding bool) (a netsetup.Attachment, err error) {
	c, err := r.connect(id)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if _, err := c.undoUnfinished(ctx); err != nil {
		return a, err
	}
	p, err := c.plan(ctx, &req, ipam.Fill)
	if err != nil {
		return a, err
	}
	opts := policy.Options{NoForwarding: noForwarding, StateDir: r.dataDir(), Recorded: r.Objects}
	if a, err = c.attach(ctx, p, opts); err != nil {
		err = fmt.Errorf("network %q: %w", p.Network.Name, err)
		if undo := c.undo(ctx, a, p.IfName); undo != nil {
			err = fmt.Errorf("%w; and %w: nsinit delete %s undoes the rest", err, undo, id)
		}
		return a, err
	}
	c.rec.state.requested([]netsetup.Request{req}, []netsetup.Plan{p})
	c.rec.state.attached(a)
	return a, c.rec.save()
}

// plan plans req beside the container's other networks, so that no name, address or subnet is given twice. fill gives it a
// default network.
func (c *connection) plan(ctx context.Context, req *netsetup.Request, fill func(context.Context, *netsetup.Host, string, *netsetup.Request) error) (p netsetup.Plan, err error) {
	switch req.Strategy {
	case "netns", "container", "none", "host":
		return p, fmt.Errorf("%s: is no network that a running container could be connected to", req.Source)
	}
	if err := os.MkdirAll(c.dataDir(), 0o755); err != nil {
		return p, fmt.Errorf("data directory: %w", err)
	}
	if err := fill(ctx, c.net, c.dataDir(), req); err != nil {
		return p, fmt.Errorf("%s: %w", req.Source, err)
	}
	for _, line := range req.Network.Warnings {
		c.warn(line)
	}
	plans, err := chain.Plan(append(slices.Clone(c.rec.state.Requests), *req))
	if err != nil {
		return p, err
	}
	p = plans[len(plans)-1]
	p.Owner, p.Joined = c.rec.id(), true // the namespace lives on when it is detached
	return p, nil
}

func (c *connection) attach(ctx context.Context, p netsetup.Plan, opts policy.Options) (netsetup.Attachment, error) {
	c.traceNetwork(c.net, p)
	a, err := chain.Attach(ctx, c.net, c.netns, p, opts, c.recorder(c.rec, p.IfName))
	if err != nil {
		return a, err
	}
	return a, netsetup.ConfigureIn(c.netns, a)
}

// undo takes away the interface of a, which has no record of its own if the container was started with it, and then what
// was recorded for it.
func (c *connection) undo(ctx context.Context, a netsetup.Attachment, ifName string) error {
	if a.IfName != "" {
		if err := netsetup.Detach(c.netns, a); err != nil {
			return err // its addresses are in use
		}
	}
	list, err := entries(c.rec.path("objects"))
	errs := []error{err}
	for _, e := range chain.UndoOrder(list, func(e entry) string { return e.Kind }) {
		// A device's name inside may have been a template when it was recorded.
		device := e.Kind == netsetup.KindDevice && e.IfName == ifName
		if e.Attachment != ifName && !device {
			continue
		}
		if err := chain.Undo(ctx, c.net, e.Object); err != nil {
			errs = append(errs, fmt.Errorf("undo %s %s: %w", e.Kind, e.Name, err))
			continue
		}
		// What was undone may be another's by the container's end.
		e.Undone = true
		errs = append(errs, journal(c.rec.path("objects"), e))
	}
	return errors.Join(errs...)
}

// unfinished are the networks whose attach was killed: recorded, and not in the state.
func (c *recorded) unfinished(list []entry) (found []netsetup.Attachment) {
	has := func(networks []netsetup.Attachment, ifName string) bool {
		return slices.ContainsFunc(networks, func(a netsetup.Attachment) bool { return a.IfName == ifName })
	}
	for _, e := range list {
		// A device's name inside may have been a template when it was recorded.
		if e.Attachment != "" && !has(c.Networks, e.Attachment) && !has(c.Networks, e.IfName) && !has(found, e.Attachment) {
			found = append(found, netsetup.Attachment{IfName: e.Attachment, Network: e.Network})
		}
	}
	return found
}

// undoUnfinished undoes what an attach has left that was killed, and returns what it was.
func (c *connection) undoUnfinished(ctx context.Context) ([]netsetup.Attachment, error) {
	list, err := entries(c.rec.path("objects"))
	if err != nil {
		return nil, err
	}
	found := c.rec.state.unfinished(list)
	for _, a := range found {
		if err := c.undo(ctx, netsetup.Attachment{}, a.IfName); err != nil {
			return nil, fmt.Errorf("network %q: left by an attach that was killed: %w", a.Network, err)
		}
	}
	return found, nil
}

// DetachNetwork takes the running container id off a network. word is the interface's name inside, or the network's if it
// has one interface there.
func (r *Runtime) DetachNetwork(ctx context.Context, id, word string) (a netsetup.Attachment, err error) {
	c, err := r.connect(id)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	unfinished, err := c.undoUnfinished(ctx)
	if err != nil {
		return a, err
	}
	i, err := c.rec.state.interfaceOf(word)
	if err != nil {
		for _, a := range unfinished {
			if a.IfName == word || a.Network == word {
				return a, nil
			}
		}
		return a, fmt.Errorf("%q: %w", id, err)
	}
	a = c.rec.state.Networks[i]
	if err := c.undo(ctx, a, a.IfName); err != nil {
		return a, fmt.Errorf("network %q: %w", a.Network, err)
	}
	c.rec.state.Networks = slices.Delete(c.rec.state.Networks, i, i+1)
	if i < len(c.rec.state.Requests) {
		c.rec.state.Requests = slices.Delete(c.rec.state.Requests, i, i+1)
	}
	return a, c.rec.save()
}

// interfaceOf finds an attachment by its interface or, if it is the only one, by its network.
func (c *recorded) interfaceOf(word string) (int, error) {
	found, all, here := -1, []string{}, []string{}
	for i, a := range c.Networks {
		if a.IfName == word {
			return i, nil
		}
		all = append(all, a.IfName+" of "+a.Network)
		if a.Network == word {
			found = i
			here = append(here, a.IfName)
		}
	}
	switch {
	case len(here) > 1:
		return 0, fmt.Errorf("network %q: it has %s there; name the interface", cutText(word), strings.Join(here, " and "))
	case found < 0 && len(all) == 0:
		return 0, fmt.Errorf("%q: neither an interface nor a network of it; it has none", cutText(word))
	case found < 0:
		return 0, fmt.Errorf("%q: neither an interface nor a network of it; it has %s", cutText(word), strings.Join(all, ", "))
	}
	return found, nil
}
