package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A Checked is one interface of a container, compared with the kernel.
type Checked struct {
	Network     string                `json:"network"`
	IfName      string                `json:"ifName"`
	Differences []netsetup.Difference `json:"differences"`
}

// requested notes what plans were made of, with the names that the interfaces have got.
func (c *recorded) requested(reqs []netsetup.Request, plans []netsetup.Plan) {
	for i, p := range plans {
		r := reqs[i]
		r.IfName, r.Owner = p.IfName, c.ID
		c.Requests = append(c.Requests, r)
	}
}

// attached notes a, which was made of the next request.
func (c *recorded) attached(a netsetup.Attachment) {
	r := &c.Requests[len(c.Networks)]
	r.IPs = slices.Clone(r.IPs)
	for i, ip := range r.IPs {
		// Without its prefix length an address has no text form; the pool's is known by now.
		if at := slices.IndexFunc(a.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip.Addr() }); at >= 0 {
			r.IPs[i] = a.Addresses[at]
		}
	}
	c.Networks = append(c.Networks, a)
}

// CheckNetworks compares every interface of container id, and what its networks' policies have made, with the
// kernel.
func (r *Runtime) CheckNetworks(ctx context.Context, id string) ([]Checked, error) {
	rec, netns, err := r.running(id)
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	net, err := netsetup.OpenHost(r.warn)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	all := []Checked{}
	var faults []error
	for i, a := range rec.state.Networks {
		c := Checked{Network: a.Network, IfName: a.IfName, Differences: []netsetup.Difference{}}
		found, err := r.check(ctx, net, netns, &rec.state, i)
		if err != nil {
			faults = append(faults, fmt.Errorf("network %q: %s: %w", a.Network, a.IfName, err))
		}
		c.Differences = append(c.Differences, found...)
		all = append(all, c)
	}
	return all, errors.Join(faults...)
}

func (r *Runtime) check(ctx context.Context, net *netsetup.Host, netns *netsetup.NetNS, c *recorded, i int) ([]netsetup.Difference, error) {
	if i >= len(c.Requests) {
		return nil, errors.New("the record doesn't say what was asked for: it is of another nsinit")
	}
	plans, err := chain.Plan([]netsetup.Request{c.Requests[i]})
	if err != nil {
		return nil, err
	}
	return chain.Check(ctx, net, netns, plans[0], c.Networks[i], policy.Options{StateDir: r.dataDir()})
}

// running opens the record of a container that runs, and its network namespace.
func (r *Runtime) running(id string) (*record, *netsetup.NetNS, error) {
	rec, err := r.open(id)
	if err != nil {
		return nil, nil, err
	}
	netns, err := rec.openNetNS()
	return rec, netns, err
}

// openNetNS opens the network namespace of a container that runs.
func (c *record) openNetNS() (*netsetup.NetNS, error) {
	pidfd, err := c.alive()
	if err != nil {
		return nil, err
	}
	if pidfd == nil || c.state.Status != StatusRunning {
		if pidfd != nil {
			_ = pidfd.Close()
		}
		return nil, fmt.Errorf("%q: is not running", c.id())
	}
	defer pidfd.Close()
	netns, err := netsetup.ProcessNetNS(pidfd, c.state.Pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%q: is not running", c.id())
	}
	return netns, err
}
