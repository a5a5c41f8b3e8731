package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// join runs a container in a network namespace that exists, and leaves that as it
// is: nothing is made in it, and nothing is taken away.
type join struct{}

// Plan validates r without asking the kernel and returns all its faults at once.
func (join) Plan(r Request) (Plan, error) {
	f := requestFaults{where: r.where()}
	if r.Path == "" {
		f.faults = append(f.faults, fmt.Errorf("%s: no namespace given; ns:PATH, as ns:/run/netns/NAME", f.where))
	}
	if r.IfName != "" {
		f.add("interface name", r.IfName, errors.New("the namespace keeps its interfaces; leave it out"))
	}
	if r.MTU != 0 {
		f.add("mtu", fmt.Sprint(r.MTU), errors.New("the namespace keeps its interfaces; leave it out"))
	}
	f.nothingElse(r)
	return Plan{Request: r}, errors.Join(f.faults...)
}

// Attach verifies that target is the namespace that p names.
func (join) Attach(ctx context.Context, _ *Host, target *NetNS, p Plan, _ []netip.Prefix, _ []netip.Addr, _ Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	named, err := OpenNetNS(p.Path)
	if err != nil {
		return Attachment{}, err
	}
	defer named.Close()
	want, err := named.id()
	if err != nil {
		return Attachment{}, err
	}
	got, err := target.id()
	if err != nil {
		return Attachment{}, err
	}
	if got != want {
		return Attachment{}, fmt.Errorf("network namespace %s: the container is in another one", p.Path)
	}
	return Attachment{Network: p.Path, Strategy: p.Strategy}, nil
}

// Check has nothing to compare: what is in the namespace is its owner's.
func (join) Check(ctx context.Context, _ *Host, _ *NetNS, _ Attachment) ([]Difference, error) {
	return nil, ctx.Err()
}

// Configure leaves the namespace as it is.
func (join) Configure(*Inside, Attachment) error { return nil }

// Commands is empty: nothing is made, and joining is no command's effect on the
// kernel's state.
func (join) Commands(Plan, Attachment) []Command { return nil }
