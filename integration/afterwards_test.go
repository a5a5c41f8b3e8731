package integration

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// The host keeps what a router told it, although forwarding is on for the bridge.
func TestRouterAdvertisementSurvives(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.Peer(t, "router")
	advertise(t, m, p)
	before := m.Routes(t)
	c := m.detached(t, "a", "--network", "bridge", "sleep", "60")
	if err := c.node(t).Ping(p.V6, 0, soon()); err != nil {
		t.Error(err)
	}
	advertised := func(rs []netsetuptest.Route) []netsetuptest.Route {
		return slices.DeleteFunc(slices.Clone(rs), func(r netsetuptest.Route) bool { return r.Protocol != "ra" })
	}
	if len(advertised(before)) == 0 {
		t.Fatalf("the host has learnt nothing: %v", before)
	}
	if got, want := fmt.Sprint(advertised(m.Routes(t))), fmt.Sprint(advertised(before)); got != want {
		t.Errorf("routes learnt before: %s, now: %s", want, got)
	}
	// The next advertisement must be heard, too.
	m.Run(t, "sh", "-c", "ip -6 route flush proto ra; ip -6 route del default proto ra 2>/dev/null; true").OK(t)
	advertise(t, m, p)
}

// A second start of the same kind changes nothing on the host.
func TestHostAfterwards(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	m.run(t, "--network", "bridge", "true").OK(t)
	before := m.Settled(t)
	for range 3 {
		m.run(t, "--network", "bridge", "true").OK(t)
	}
	m.Await(t, before)
	m.nsinit(t, "gc").OK(t)
	m.Await(t, before)
}

// gc --all gives the host back as it was before nsinit.
func TestHostBeforeEverything(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	m.Outside(t)
	files := []string{"file ", "cgroup "} // empty directories may stay
	before := m.Snapshot(t).Without(files...)
	m.run(t, "--network", "bridge", "true").OK(t)
	if netsetuptest.Diff(before, m.Snapshot(t).Without(files...)) == "" {
		t.Error("a bridge leaves no trace: the snapshot is blind")
	}
	m.nsinit(t, "gc", "--all").OK(t)
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(before, m.Snapshot(t).Without(files...)); d != "" {
			return fmt.Errorf("the host is not as it was:\n%s", d)
		}
		return nil
	})
}
