package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A fault is one start that is disturbed at one gate.
type fault struct {
	gate
	detach bool
	victim string      // "parent", "init", or "" for a signal to the parent
	signal unix.Signal // with no victim
}

func (f fault) String() string {
	name := f.victim
	if name == "" {
		name = unix.SignalName(f.signal)
	}
	if f.detach {
		name += "/detached"
	}
	return name + "/" + f.gate.String()
}

// args are a start of what has most to be undone, and more.
func (f fault) args(root string, more ...string) []string {
	flags := []string{"--rootfs", root, "--name", "victim", "--network", "bridge", "--netns-name", "victim"}
	if f.detach {
		flags = append(flags, "--detach")
	}
	return with(flags, more, f.extra(), script(fmt.Sprintf("trap 'exit %d' %d; sleep 1000 & wait", 128+f.signal, max(f.signal, 1))))
}

// hasInit tells whether there is an init to kill at the gate.
func (f fault) hasInit(steps []string) bool {
	child := slices.Index(steps, "child")
	at := slices.Index(steps, f.step)
	return f.side == "init" || at > child || at == child && f.phase == "after"
}

// mayRun tells whether the program may run at the gate already, and is as good as started.
func (f fault) mayRun() bool {
	return f.side == "host" && (f.step == "running" || f.step == "ready" || f.step == "release" && f.phase == "after")
}

// faults are all that the two lists of steps give.
func faults(t testing.TB) []fault {
	t.Helper()
	m := newMachine(t)
	hostSteps := stepNames(t, m)["host"]
	var all []fault
	for i, g := range gates(t, m) {
		for _, detach := range []bool{false, true} {
			if detach && g.step == "console" {
				continue // a monitor is in between then
			}
			all = append(all, fault{gate: g, detach: detach, victim: "parent"})
			if f := (fault{gate: g, detach: detach, victim: "init"}); f.hasInit(hostSteps) {
				all = append(all, f)
			}
			if g.side == "host" {
				sig := []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[i%3]
				all = append(all, fault{gate: g, detach: detach, signal: sig})
			}
		}
	}
	if few() { // a sample of all kinds: 13 has no factor in common with what the kinds repeat by
		sample := all[:0]
		for i := 0; i < len(all); i += 13 {
			sample = append(sample, all[i])
		}
		return sample
	}
	return all
}

// TestKilledAnywhere kills the parent, and in other starts the init, before and after every step, and sends the parent
// signals; then the host is what it was after the first start.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	all := faults(t)
	t.Logf("%d faults", len(all))
	const hosts = 4
	for i := range hosts {
		t.Run(fmt.Sprintf("host-%d", i), func(t *testing.T) {
			t.Parallel()
			bed := newFaultBed(t)
			for j := i; j < len(all); j += hosts {
				f := all[j]
				if !t.Run(f.String(), func(t *testing.T) { bed.try(t, f) }) {
					bed = newFaultBed(t) // the others are no worse for it
				}
			}
		})
	}
}

// A faultBed is a host with what it was after a first start.
type faultBed struct {
	*machine
	root   string
	more   []string // flags
	before netsetuptest.Snapshot
}

func newFaultBed(t testing.TB, more ...string) *faultBed {
	t.Helper()
	return newFaultBedOn(t, newMachine(t), more...)
}

func newFaultBedOn(t testing.TB, m *machine, more ...string) *faultBed {
	t.Helper()
	bed := &faultBed{machine: m, root: newRootfs(t), more: more}
	bed.Dirty() // the state is compared whole, after every case
	bed.run(t, with([]string{"--rootfs", bed.root, "--network", "bridge", "--publish", "8080:80", "--netns-name", "first"}, more, []string{"--", "true"})...).OK(t)
	bed.before = bed.Settled(t)
	return bed
}

func (bed *faultBed) try(t *testing.T, f fault) {
	s := bed.stopAt(t, f.gate, f.args(bed.root, bed.more...)...)
	switch f.victim {
	case "parent":
		s.Signal(t, unix.SIGKILL)
		s.Wait(t)
		bed.afterParent(t, f)
	case "init":
		s.killInit(t)
		if f.side == "host" {
			s.goOn(t)
		}
		bed.afterInit(t, f, s.Wait(t))
	default:
		if f.mayRun() && !f.detach && f.gate != (gate{"host", "ready", "before"}) && f.step != "release" {
			s.awaitTrap(t, f.signal) // it is the program's already, and PID 1 ignores what it doesn't catch
		}
		s.Signal(t, f.signal)
		time.Sleep(30 * time.Millisecond) // it is taken by a thread of its own; later it is the program's, and answered as well
		s.goOn(t)
		if r := s.Wait(t); r.Code != 128+int(f.signal) {
			t.Errorf("exit code %d after signal %d, want %d\n%s", r.Code, f.signal, 128+int(f.signal), r.Stderr)
		}
	}
	bed.Await(t, bed.before)
}

// afterParent is one gc. A detached container that was told to be running is nobody's leftover.
func (bed *faultBed) afterParent(t *testing.T, f fault) {
	t.Helper()
	r := bed.nsinit(t, "gc").OK(t)
	if r.Stderr != "" {
		t.Errorf("gc: %s", r.Stderr)
	}
	if f.detach && f.gate == (gate{"host", "running", "after"}) {
		if got := bed.nsinit(t, "state", "victim").OK(t); !strings.Contains(got.Stdout, `"running"`) {
			t.Errorf("the container that was started is gone: %s", got.Stdout)
		}
		bed.nsinit(t, "delete", "--force", "victim").OK(t)
	}
}

// afterInit wants the start's own undo and one line of what happened, or that the program had started.
func (bed *faultBed) afterInit(t *testing.T, f fault, r netsetuptest.Result) {
	t.Helper()
	switch {
	case r.Code == 125:
		if err := oneLine(r); err != nil {
			t.Error(err)
		}
		if !strings.Contains(r.Stderr, "init") {
			t.Errorf("the line does not say that the init was killed: %s", r.Stderr)
		}
	case f.mayRun() && f.detach && r.Code == 0:
		bed.nsinit(t, "gc").OK(t)
	case f.mayRun() && !f.detach && r.Code == 128+int(unix.SIGKILL):
	default:
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
}
