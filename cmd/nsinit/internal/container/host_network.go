package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/plugin"
	"github.com/nsinit/nsinit/netsetup/policy"
	"golang.org/x/sys/unix"
)

// Kinds of objects that are undone here; the rest belong to netsetup, ipam and policy.
const (
	kindCgroup = "cgroup"
)

// endingFile is there when the record's objects are being undone.
const endingFile = "ending"

func (h *host) hasNetworks() bool { return len(h.requests()) > 0 }

// requests are the networks that have to be attached, and behind them the host's devices that are moved in.
func (h *host) requests() []netsetup.Request {
	if h.spec.joins() {
		return h.spec.netDevices()
	}
	return slices.Concat(h.spec.Networks, h.spec.netDevices())
}

// beside runs f on a goroutine of its own; what it returns waits for its end.
func beside(f func() error) (wait func() error) {
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = f()
	}()
	return func() error {
		<-done
		return err
	}
}

// awaitPlans has the plans ready, which have been made while the init was cloned.
func (h *host) awaitPlans() error { return h.planned() }

// planNetworks turns the requests into plans, before anything of the network is touched.
func (h *host) planNetworks() (err error) {
	if err := os.MkdirAll(h.dataDir(), 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if h.net, err = netsetup.OpenHost(h.warn); err != nil {
		return err
	}
	reqs := h.requests()
	for i := range reqs {
		if err := ipam.Fill(h.ctx, h.net, h.dataDir(), &reqs[i]); err != nil {
			return fmt.Errorf("%s: %w", reqs[i].Source, err)
		}
		if n := reqs[i].Network; n != nil {
			if len(reqs[i].Runtime.PortMappings) > 0 {
				reqs[i].Network = n.WithPortmap()
			}
			for _, line := range n.Warnings {
				h.warn(line)
			}
		}
	}
	if h.plans, err = chain.Plan(reqs); err != nil {
		return err
	}
	h.rec.state.requested(reqs, h.plans)
	return nil
}

// publishes tells whether the container asks for ports of the host; those of its networks' files are seen when the
// network is made.
func (h *host) publishes() bool {
	return slices.ContainsFunc(h.plans, func(p netsetup.Plan) bool { return len(p.Runtime.PortMappings) > 0 })
}

// reservePorts takes the host's ports for the container, or tells who has them.
func (h *host) reservePorts() error {
	for _, p := range h.plans {
		p.Owner = h.spec.ID
		if err := chain.Reserve(h.ctx, p, h.policyOptions(), h.recorder(h.rec, p.IfName)); err != nil {
			return err
		}
	}
	return nil
}

// openJoined opens the namespace of ns:PATH or container:ID, in which the init is born.
func (h *host) openJoined() (err error) {
	req := h.spec.Networks[0]
	if req.Strategy == "netns" {
		h.netns, err = netsetup.OpenNetNS(req.Path)
		return err
	}
	rec, err := h.open(req.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", req.Source, err)
	}
	pidfd, err := rec.alive()
	if err != nil {
		return err
	}
	if pidfd == nil {
		return fmt.Errorf("%s: container %q is not running", req.Source, req.Path)
	}
	defer pidfd.Close()
	h.netns, err = netsetup.ProcessNetNS(pidfd, rec.state.Pid)
	return err
}

func (h *host) closeNetworks() error {
	if h.planned != nil {
		_ = h.planned() // was somebody's error already
	}
	var errs []error
	if h.netns != nil {
		errs = append(errs, h.netns.Close())
		h.netns = nil
	}
	if h.net != nil {
		errs = append(errs, h.net.Close())
		h.net = nil
	}
	return errors.Join(errs...)
}

// attachNetworks is the host half of every network, in order, while the init starts up. The pair is in the
// container's namespace before the init is released.
func (h *host) attachNetworks() (err error) {
	if h.netns == nil {
		if h.netns, err = netsetup.ProcessNetNS(h.pidfd, h.pid); err != nil {
			return h.childError(err)
		}
	}
	for _, p := range h.plans {
		a, err := h.attach(p)
		if err != nil {
			return fmt.Errorf("%s: %w", networkOf(p), err)
		}
		h.rec.state.attached(a)
	}
	return nil
}

// networkOf names what p was made of, for errors.
func networkOf(p netsetup.Plan) string {
	if p.Network == nil {
		return p.Source
	}
	return fmt.Sprintf("network %q", p.Network.Name)
}

func (h *host) attach(p netsetup.Plan) (netsetup.Attachment, error) {
	p.Owner = h.spec.ID
	h.traceNetwork(h.net, p)
	return chain.Attach(h.ctx, h.net, h.netns, p, h.policyOptions(), h.recorder(h.rec, p.IfName))
}

func (h *host) policyOptions() policy.Options {
	return policy.Options{NoForwarding: h.spec.NoForwarding, StateDir: h.dataDir(), Recorded: h.Objects}
}

// attachments are those that other runtimes have by nsinit as their CNI plugin.
func (r *Runtime) attachments() *plugin.Plugin {
	return &plugin.Plugin{Root: r.root(), DataDir: r.dataDir(), Warn: r.warn}
}

// Objects returns those in the records of all networks, containers and attachments: a firewall table that somebody
// flushed is made again for all of them.
func (r *Runtime) Objects() (all []netsetup.Object, err error) {
	all, err = objects(r.hostObjects())
	if err != nil {
		return nil, err
	}
	attached, attachedErr := r.attachments().Objects()
	all = append(all, attached...)
	dirs, err := os.ReadDir(r.containers())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, attachedErr)
	for _, d := range dirs {
		if _, err := os.Lstat(filepath.Join(r.containers(), d.Name(), endingFile)); err == nil {
			continue // its rules are being taken out, and must not be put back
		}
		list, listErr := objects(filepath.Join(r.containers(), d.Name(), "objects"))
		all, err = append(all, list...), errors.Join(err, listErr)
	}
	return all, err
}

// detachNetworks gives back what the container has on the host, from its record: leases, rules, a name
// under /run/netns. The interfaces go with the namespace. The init ends first: an address that it still has is
// nobody else's.
func (h *host) detachNetworks() error {
	if h.detached { // two steps record what is undone here, and once is enough
		return nil
	}
	h.detached = true
	return errors.Join(h.killChild(), h.leaves(h.undoObjects(h.ctx, h.rec, h.net)))
}

// undoObjects undoes what is in a record, newest first, and goes on after an error. net may be nil: then it is opened
// when it is needed.
func (r *Runtime) undoObjects(ctx context.Context, rec *record, net *netsetup.Host) error {
	// Its init has ended: who connects it to a network at this moment is waited for, and nobody will.
	l, err := rec.lockObjects()
	if err != nil {
		return err
	}
	defer l.Unlock()
	list, err := objects(rec.path("objects"))
	if err != nil {
		return err
	}
	var errs []error
	if slices.ContainsFunc(list, func(o netsetup.Object) bool { return policy.Owns(o.Kind) }) {
		// On a full file system it is done without: a reload at this very moment may then bring a rule back.
		if err := os.WriteFile(rec.path(endingFile), nil, 0o600); !errors.Is(err, unix.ENOSPC) {
			errs = append(errs, err)
		}
	}
	// A cgroup is removeCgroup's, once its processes have ended.
	list = slices.DeleteFunc(list, func(o netsetup.Object) bool { return o.Kind == kindCgroup })
	if net == nil && slices.ContainsFunc(list, func(o netsetup.Object) bool { return o.Kind != "lease" }) {
		if net, err = netsetup.OpenHost(r.warn); err != nil {
			return errors.Join(append(errs, err)...)
		}
		defer net.Close()
	}
	slices.Reverse(list)
	return errors.Join(append(errs, chain.Undo(ctx, net, list...))...)
}

func (h *host) hasNetnsName() bool { return h.spec.NetnsName != "" }

// bindNetns makes the namespace available to `ip netns`.
func (h *host) bindNetns() error {
	return h.netns.BindName(h.spec.NetnsName, h.spec.ID, h.recorder(h.rec, ""))
}

// resolvConf is the container's /etc/resolv.conf. Resolvers that serve the host's loopback only are relayed at the
// gateway of the first network that can.
func (h *host) resolvConf() ([]byte, error) {
	res, err := netsetup.NewResolvers("/etc/resolv.conf", h.spec.DNS, h.rec.state.Networks)
	if err != nil {
		return nil, err
	}
	if h.spec.HostNet {
		return res.HostContent(), nil
	}
	upstream := res.Loopback()
	if h.spec.joins() || len(upstream) == 0 {
		return res.Content(), nil
	}
	for _, a := range h.rec.state.Networks {
		relay, err := policy.Resolver(h.ctx, h.net, a, h.spec.ID, upstream, h.policyOptions(), h.recorder(h.rec, a.IfName))
		if errors.Is(err, policy.ErrNoRelay) {
			continue
		}
		return res.Content(relay), err
	}
	return res.Content(), nil
}

// hosts is the container's /etc/hosts.
func (h *host) hosts() ([]byte, error) {
	var addrs, gateways []netip.Addr
	for _, a := range h.rec.state.Networks {
		for _, p := range a.Addresses {
			addrs = append(addrs, p.Addr())
		}
		gateways = append(gateways, a.Gateways...)
	}
	return netsetup.Hosts(h.spec.hostname(), addrs, gateways, h.spec.AddHosts)
}
