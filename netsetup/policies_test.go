package netsetup

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// What the tests of the policies share.

// A chained is a plan with one policy behind its strategy.
type chained struct {
	Plan
	policy Policy
	conf   any
}

// listOf makes a network of the plugins.
func listOf(plugins ...string) *Network {
	n := networkOf(plugins[0])
	for _, p := range plugins[1:] {
		n.Plugins = append(n.Plugins, networkOf(p).Plugins...)
	}
	return n
}

// planChained plans strategy with one policy behind it.
func planChained(t testing.TB, policy Policy, strategy, plugin string, change ...func(*Request)) chained {
	t.Helper()
	n := listOf(strategy, plugin)
	c := chained{policy: policy, Plan: planOf(t, strategy, append(change, func(r *Request) { r.Network = n })...)}
	var err error
	if c.conf, err = policy.Plan(c.Plan, n.Plugins[1]); err != nil {
		t.Fatal(err)
	}
	return c
}

// newNamed is a container whose namespace has a path, as a record needs it.
func newNamed(t *testing.T, host *netsetuptest.Host, name string) testContainer {
	t.Helper()
	c := newContainer(t, host, name)
	_ = c.ns.Close()
	var err error
	if c.ns, err = OpenNetNS(host.Path("/run/netns/" + name)); err != nil {
		t.Fatal(err)
	}
	ns := c.ns
	t.Cleanup(func() { _ = ns.Close() })
	return c
}

// attachChained is the host half of a start.
func (c testContainer) attachChained(t testing.TB, host *netsetuptest.Host, p chained, addrs []netip.Prefix, record Recorder) Attachment {
	t.Helper()
	a, err := c.attach(host, p.Plan, addrs, record)
	if err != nil {
		t.Fatal(err)
	}
	c.attachPolicy(t, host, p, &a, record)
	return a
}

func (c testContainer) attachPolicy(t testing.TB, host *netsetuptest.Host, p chained, a *Attachment, record Recorder) {
	t.Helper()
	err := onHost(host, func(h *Host) error {
		return p.policy.Attach(context.Background(), h, c.ns, p.Plan, p.conf, a, record)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startChained is both halves.
func (c testContainer) startChained(t testing.TB, host *netsetuptest.Host, p chained, addrs []netip.Prefix) Attachment {
	t.Helper()
	a := c.attachChained(t, host, p, addrs, noRecord)
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	return a
}

// checkPolicy returns the policy's differences.
func (c testContainer) checkPolicy(t testing.TB, host *netsetuptest.Host, p chained, a Attachment) []Difference {
	t.Helper()
	var found []Difference
	err := onHost(host, func(h *Host) (err error) {
		found, err = p.policy.Check(context.Background(), h, c.ns, p.Plan, p.conf, a)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// undo takes back what was recorded, the last first, twice.
func undo(t testing.TB, host *netsetuptest.Host, records []Object) {
	t.Helper()
	for range 2 {
		for _, o := range slices.Backward(records) {
			var err error
			if o.IfName != "" { // a namespace's path, as the test sees it
				err = Undo(context.Background(), nil, o)
			} else {
				err = onHost(host, func(h *Host) error { return Undo(context.Background(), h, o) })
			}
			if err != nil {
				t.Errorf("undo %+v: %v", o, err)
			}
		}
	}
}

// replayPolicy runs the commands that stand for p, the container being named web.
func replayPolicy(t testing.TB, host *netsetuptest.Host, inside *netsetuptest.Node, commands []Command) {
	t.Helper()
	for _, c := range commands {
		n := host.Node
		if c.Inside {
			n = inside
		}
		n.Run(t, "sh", "-c", "NETNS=web; "+c.Line).OK(t)
	}
}
