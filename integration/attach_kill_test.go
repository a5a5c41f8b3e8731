package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// attachChains are the lists that a running container is attached to, and killed at.
func attachChains() []pluginChain {
	return []pluginChain{
		{name: "bridge", plugins: []string{
			chainBridge, chainPortmap, chainFirewall, chainBandwidth, chainTuning, `{"type": "sbr"}`,
		}},
		{name: "macvlan", plugins: []string{`{"type": "macvlan", "master": "to-outside", ` + chainIPAM + `}`, chainTuning}, prepare: outside},
		{name: "host-device", plugins: []string{`{"type": "host-device", "device": "card", ` + chainIPAM + `}`}, prepare: networkCard},
	}
}

// An attachHost is a machine with a container whose networks change, and what both were before.
type attachHost struct {
	*pluginHost
	c    *container
	file string // the network's
}

func newAttachHost(t *testing.T, chain pluginChain) *attachHost {
	t.Helper()
	h := &attachHost{pluginHost: &pluginHost{machine: newMachine(t), chain: chain}}
	h.Dirty() // the state is compared whole
	if chain.prepare != nil {
		chain.prepare(t, h.pluginHost)
	}
	h.file = listFile(t, "lan", chain.plugins...)
	h.c = h.detached(t, "c", "--", "sleep", "1000")
	h.attach(t, 0).OK(t)
	h.detach(t, 0).OK(t)
	netsetuptest.Poll(t, func() error { // the kernel tells once a second that a bridge has lost its last port
		h.before = h.look(t)
		if up := h.before.Grep("link lan0: ").Grep("operstate=UP"); len(up) > 0 {
			return fmt.Errorf("not settled: %s", up[0])
		}
		return nil
	})
	h.inside = h.c.node(t).NetworkSnapshot(t)
	return h
}

func (h *attachHost) attach(t *testing.T, kill int) netsetuptest.Result {
	t.Helper()
	return h.networkVerb(t, kill, "attach", "c", h.file)
}

func (h *attachHost) detach(t *testing.T, kill int) netsetuptest.Result {
	t.Helper()
	return h.networkVerb(t, kill, "detach", "c", "lan")
}

func (h *attachHost) networkVerb(t *testing.T, kill int, args ...string) netsetuptest.Result {
	t.Helper()
	cmd := h.Command(with([]string{gatesBin, "network"}, args)...)
	cmd.Env = append(cmd.Env, fmt.Sprint("NSINIT_KILL=", kill))
	return h.RunCmd(t, cmd)
}

// look is the host without what a record in use changes: its journal grows, and its state is saved.
func (h *attachHost) look(t *testing.T) netsetuptest.Snapshot {
	t.Helper()
	return h.Snapshot(t).Without("file /run/nsinit/containers/c/", "process ")
}

func (h *attachHost) asBefore(t *testing.T) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(h.before, h.look(t)); d != "" {
			return fmt.Errorf("the host is not as it was (- before, + now):\n%s", d)
		}
		return nil
	})
	if d := netsetuptest.Diff(h.inside, h.c.node(t).NetworkSnapshot(t)); d != "" {
		t.Errorf("the container is not as it was (- before, + now):\n%s", d)
	}
	if n := h.c.state(t).Networks; len(n) > 0 {
		t.Errorf("its state has %v", n)
	}
}

// recoverings are what a person does after a kill while the container runs.
func (h *attachHost) recoverings() []func(t *testing.T) {
	detach := func(t *testing.T) {
		r := h.detach(t, 0)
		if r.Code != 0 && !strings.Contains(r.Stderr, "neither an interface nor a network of it") { // killed before all, or behind it
			t.Errorf("detach: %s", r.Stderr)
		}
	}
	return []func(t *testing.T){
		detach,
		func(t *testing.T) { h.gc(t); detach(t) }, // what is attached by now is not gc's
		func(t *testing.T) { // the same once more
			if r := h.attach(t, 0); r.Code == 0 || !strings.Contains(r.Stderr, "card") { // there is but one
				r.OK(t)
			}
			for range len(h.c.state(t).Networks) {
				h.networkVerb(t, 0, "detach", "c", h.c.state(t).Networks[0].IfName).OK(t)
			}
		},
	}
}

// eachKill kills a command at each change that it makes, with what comes before it and after it.
func (h *attachHost) eachKill(t *testing.T, name string, before func(*testing.T), kill func(*testing.T, int) netsetuptest.Result) {
	t.Helper()
	all := h.recoverings()
	for n := 1; ; n++ {
		if few() && n%5 != 1 {
			continue
		}
		before(t)
		place, killed := killedBefore(t, kill(t, n))
		all[n%len(all)](t)
		if !t.Run(fmt.Sprint(name, n), h.asBefore) {
			t.Fatalf("killed before %s", place)
		}
		if !killed {
			t.Logf("%s is killed at %d places", name, n-1)
			if n < 10 {
				t.Error("too few: the binary has no gates there")
			}
			return
		}
	}
}

// TestAttachKilledAnywhere kills network attach and detach before each change that they make. The next detach, gc, or
// attach and detach leave nothing of it, on the host and in the container, which runs all the time.
func TestAttachKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, chain := range attachChains() {
		t.Run(chain.name, func(t *testing.T) {
			t.Parallel()
			h := newAttachHost(t, chain)
			h.eachKill(t, "attach", func(*testing.T) {}, h.attach)
			h.eachKill(t, "detach", func(t *testing.T) { h.attach(t, 0).OK(t) }, h.detach)
		})
	}
}

// TestAttachKilledThenDelete has the container end after an attach or a detach that was killed: by delete, or on its own
// and by gc.
func TestAttachKilledThenDelete(t *testing.T) {
	t.Parallel()
	for _, chain := range attachChains() {
		t.Run(chain.name, func(t *testing.T) {
			t.Parallel()
			h := newAttachHost(t, chain)
			h.end(t, 0)
			h.before = h.Settled(t)
			for _, verb := range []string{"attach", "detach"} {
				for n, killed := 1, true; killed; n++ {
					if few() && n%5 != 1 {
						continue
					}
					killed = h.lifeOf(t, verb, n)
				}
			}
		})
	}
}

// lifeOf starts a container, kills verb at its change n, and ends it.
func (h *attachHost) lifeOf(t *testing.T, verb string, n int) (killed bool) {
	t.Helper()
	cmd := h.command("run", "-d", "--name", "c", "--", "sleep", "1000")
	cmd.Stdout, cmd.Stderr = null(t), null(t)
	h.RunCmd(t, cmd).OK(t)
	kill := h.attach
	if verb == "detach" {
		h.attach(t, 0).OK(t)
		kill = h.detach
	}
	place, killed := killedBefore(t, kill(t, n))
	h.end(t, n)
	if !t.Run(fmt.Sprint(verb, n), func(t *testing.T) { h.Await(t, h.before) }) {
		t.Fatalf("killed before %s", place)
	}
	return killed
}

// end ends the container in one of two ways.
func (h *attachHost) end(t *testing.T, n int) {
	t.Helper()
	if n%2 == 0 {
		h.nsinit(t, "delete", "--force", "c").OK(t)
		return
	}
	h.nsinit(t, "kill", "c", "KILL").OK(t)
	netsetuptest.Poll(t, func() error {
		if s := h.c.state(t).Status; s != "stopped" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	h.gc(t)
}

// null is where the output of a container goes that holds it open.
func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
