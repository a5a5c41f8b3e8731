package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// wantFrozen looks at the kernel's word on whether the container's processes are stopped, and at the record.
func (c *container) wantFrozen(t *testing.T, want bool) {
	t.Helper()
	events, err := os.ReadFile(filepath.Join(c.m.Cgroup(), "nsinit", c.id, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Contains(string(events), "frozen 1"); got != want {
		t.Errorf("stopped: %v, want %v", got, want)
	}
	if left := c.m.Run(t, "ls", "/run/nsinit/containers/"+c.id).OK(t).Stdout; strings.Contains(left, "frozen") != want {
		t.Errorf("the record has the files %q, stopped: %v", strings.Fields(left), want)
	}
}

var frozenGate = gate{"exec", "exec", "frozen"}

// killEntering kills an exec while the container is stopped.
func (c *container) killEntering(t *testing.T) {
	t.Helper()
	s := c.m.stopVerbAt(t, frozenGate, "exec", c.id, "true")
	if err := s.Cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Wait(t)
	c.wantFrozen(t, true)
}

// machineWithCgroup is one whose containers can be stopped.
func machineWithCgroup(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	if m.Cgroup() == "" {
		t.Skip("no unified cgroup hierarchy to stop a container by")
	}
	return m
}

func tracer(t *testing.T, m *machine) *container {
	t.Helper()
	return m.detached(t, "tracer", "--cap-add", "SYS_PTRACE", "--rootfs", newRootfs(t), "--", "sleep", "1000")
}

// A container that can trace processes is stopped while one enters it, and runs again afterwards, whatever came of that.
func TestExecBesideTracer(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	c := tracer(t, m)
	got := c.exec(t, "sh", "-c", "grep 0:: /proc/self/cgroup; grep -E 'TracerPid|CapBnd|NoNewPrivs' /proc/self/status; exit 0").OK(t).Stdout
	if want := "0::/\nTracerPid:\t0\nCapBnd:\t00000000800c25fb\nNoNewPrivs:\t1\n"; got != want {
		t.Errorf("inside: %q, want %q", got, want)
	}
	c.wantFrozen(t, false)
	for _, tt := range []struct {
		want int
		args []string
	}{
		{7, []string{"tracer", "sh", "-c", "exit 7"}},
		{127, []string{"tracer", "nothing-of-the-kind"}},
		{126, []string{"tracer", "/etc"}},
		{143, []string{"tracer", "sh", "-c", "kill -TERM $$"}},
		{0, []string{"--user", "alice", "tracer", "true"}},
	} {
		m.nsinit(t, with([]string{"exec"}, tt.args)...).Want(t, tt.want)
		c.wantFrozen(t, false)
	}
	cmd := m.command("exec", "-d", "tracer", "sleep", "999")
	cmd.Stdout, cmd.Stderr = null(t), null(t)
	m.RunCmd(t, cmd).OK(t)
	if pids, err := os.ReadFile(m.Cgroup() + "/nsinit/tracer/cgroup.procs"); err != nil || strings.Count(string(pids), "\n") != 2 {
		t.Errorf("processes in the cgroup: %q, %v", pids, err)
	}
	c.wantFrozen(t, false)
	p, term := startOnTerminal(t, m, m.command("exec", "-ti", "tracer", "sh", "-c", "read x; echo got $x; exit 4"))
	term.types(t, "line\n")
	p.Wait(t).Want(t, 4)
	if got := term.all(t); !strings.Contains(got, "got line") {
		t.Errorf("terminal shows %q", got)
	}
}

// Nothing of the container runs from before the clone to the program. An exec that is killed there leaves it stopped
// until the next one, or gc.
func TestExecKilledBesideTracer(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	c := tracer(t, m)
	s := m.stopVerbAt(t, frozenGate, "exec", "tracer", "true")
	c.wantFrozen(t, true)
	s.goOn(t)
	s.Wait(t).Want(t, 0)
	c.wantFrozen(t, false)
	for _, heal := range [][]string{{"gc"}, {"exec", "tracer", "true"}} {
		c.killEntering(t)
		m.nsinit(t, heal...).OK(t)
		c.wantFrozen(t, false)
	}
	c.killEntering(t)
	m.nsinit(t, "delete", "--force", "tracer").OK(t)
}

// What one exec lets in may look at the next.
func TestExecAfterTracer(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	c := m.detached(t, "c", "--rootfs", newRootfs(t), "--", "sleep", "1000")
	cmd := m.command("exec", "-d", "--cap-add", "SYS_PTRACE", "c", "sleep", "999")
	cmd.Stdout, cmd.Stderr = null(t), null(t)
	m.RunCmd(t, cmd).OK(t)
	s := m.stopVerbAt(t, frozenGate, "exec", "c", "true")
	c.wantFrozen(t, true)
	s.goOn(t)
	s.Wait(t).Want(t, 0)
	c.wantFrozen(t, false)
}

// A container that somebody has paused stays so: an exec says it and doesn't hang.
func TestExecPaused(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	for name, flags := range map[string][]string{"plain": nil, "tracing": {"--cap-add", "SYS_PTRACE"}} {
		c := m.detached(t, name, with(flags, []string{"--rootfs", newRootfs(t), "--", "sleep", "1000"})...)
		freeze := filepath.Join(m.Cgroup(), "nsinit", name, "cgroup.freeze")
		if err := os.WriteFile(freeze, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		if r := m.nsinit(t, "exec", name, "true").Want(t, 125); !strings.Contains(r.Stderr, "is paused") {
			t.Errorf("stderr %q", r.Stderr)
		}
		m.nsinit(t, "gc").OK(t)
		if b, err := os.ReadFile(freeze); err != nil || string(b) != "1\n" {
			t.Errorf("cgroup.freeze afterwards: %q, %v", b, err)
		}
		if err := os.WriteFile(freeze, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		m.nsinit(t, "exec", name, "true").OK(t)
		c.wantFrozen(t, false)
	}
}

// An exec may hang before the program runs, here by a lease on its file. A signal ends it, and whoever comes after one
// that was killed ends what it has left, before the container runs again and could look into that.
func TestExecHangsBesideTracer(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	root := newRootfs(t)
	program := filepath.Join(root, "bin", "leased")
	m.Run(t, "cp", filepath.Join(root, "bin", "busybox"), program).OK(t)
	c := m.detached(t, "tracer", "--cap-add", "SYS_PTRACE", "--rootfs", root, "--", "sleep", "1000")
	leased, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer leased.Close()
	if _, err := unix.FcntlInt(leased.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skip("a lease on a file: ", err)
	}
	entry := filepath.Join(m.Cgroup(), "nsinit", ".entering-tracer")
	hang := func() *netsetuptest.Process {
		p := m.Start(t, m.command("exec", "tracer", "/bin/leased", "true"))
		netsetuptest.Poll(t, func() error {
			if events, err := os.ReadFile(filepath.Join(entry, "cgroup.events")); err != nil || !strings.Contains(string(events), "populated 1") {
				return fmt.Errorf("nobody enters: %q, %w", events, err)
			}
			return nil
		})
		return p
	}
	signal := func(p *netsetuptest.Process, sig os.Signal) {
		if err := p.Cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	p := hang()
	signal(p, unix.SIGINT)
	if r := p.Wait(t).Want(t, 125); !strings.Contains(r.Stderr, "ended before the program ran") {
		t.Errorf("stderr %q", r.Stderr)
	}
	c.wantFrozen(t, false)
	for _, heal := range [][]string{{"gc"}, {"exec", "tracer", "true"}, {"delete", "--force", "tracer"}} {
		p := hang()
		signal(p, unix.SIGKILL)
		p.Wait(t)
		pids, err := os.ReadFile(filepath.Join(entry, "cgroup.procs"))
		if err != nil || len(pids) == 0 {
			t.Fatalf("nothing is left: %q, %v", pids, err)
		}
		m.nsinit(t, heal...).OK(t)
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pids))); err == nil {
			t.Errorf("process %s lives after %v", pids, heal)
		}
		if _, err := os.Stat(entry); err == nil {
			t.Errorf("%s is still there after %v", entry, heal)
		}
		if heal[0] != "delete" {
			c.wantFrozen(t, false)
		}
	}
}

// gc lets a container run again whose foreground run goes on.
func TestExecKilledBesideForegroundTracer(t *testing.T) {
	t.Parallel()
	m := machineWithCgroup(t)
	c := &container{m: m, id: "tracer"}
	run := m.start(t, "--name", "tracer", "--cap-add", "SYS_PTRACE", "--rootfs", newRootfs(t), "--", "sleep", "1000")
	netsetuptest.Poll(t, func() error {
		if r := m.nsinit(t, "exec", "tracer", "true"); r.Code != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	c.killEntering(t)
	m.nsinit(t, "gc").OK(t)
	c.wantFrozen(t, false)
	m.nsinit(t, "kill", "tracer", "KILL").OK(t)
	run.Wait(t).Want(t, 137)
}
