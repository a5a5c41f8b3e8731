package integration

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A gate is a place in one of the step lists where a start stops.
type gate struct{ side, step, phase string }

func (g gate) String() string { return g.side + ":" + g.step + ":" + g.phase }

// gates are all places of both lists, in order, that a start with the flags of gateFlags comes by.
func gates(t testing.TB, m *machine) []gate {
	t.Helper()
	names := stepNames(t, m)
	var all []gate
	for _, side := range []string{"host", "init"} {
		if len(names[side]) < 5 {
			t.Fatalf("the list of the %s has %d steps", side, len(names[side]))
		}
		for _, name := range names[side] {
			all = append(all, gate{side, name, "before"})
			if side != "init" || name != "exec" { // it does not come back
				all = append(all, gate{side, name, "after"})
			}
		}
	}
	return all
}

// extra are the flags without which a start does not come by the gate.
func (g gate) extra() []string {
	switch {
	case g.side == "host" && g.step == "root":
		return []string{"--userns=private", "--uidmap", "0:100000:65536"}
	case g.side == "host" && g.step == "ports":
		return []string{"--publish", "8080:80"}
	case g.side == "init" && g.step == "console":
		return []string{"--tty"}
	}
	return nil
}

// A stopped is a start that waits at a gate.
type stopped struct {
	*netsetuptest.Process
	release *os.File
}

// stopAt starts nsinit run args... and waits until it stands at g.
func (m *machine) stopAt(t testing.TB, g gate, args ...string) *stopped {
	t.Helper()
	return m.stopVerbAt(t, g, with([]string{"run"}, args)...)
}

// stopVerbAt starts nsinit args... and waits until it stands at g.
func (m *machine) stopVerbAt(t testing.TB, g gate, args ...string) *stopped {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "gate")
	said, release := openFIFO(t, fifo), openFIFO(t, fifo+".go")
	cmd := m.Command(with([]string{gatesBin}, args)...)
	cmd.Env = append(cmd.Env, "NSINIT_GATE="+g.String(), "NSINIT_GATE_FIFO="+fifo)
	p := m.Start(t, cmd)
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(said).ReadString('\n')
		line <- s
	}()
	select {
	case s := <-line:
		if want := g.side + " " + g.step + " " + g.phase + "\n"; s != want {
			t.Fatalf("stopped at %q, want %q", s, want)
		}
	case <-p.Done():
		t.Fatalf("did not come by %v: exit code %d\n%s%s", g, p.Wait(t).Code, p.Stdout(), p.Stderr())
	}
	return &stopped{p, release}
}

func openFIFO(t testing.TB, path string) *os.File {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// goOn lets the start go.
func (s *stopped) goOn(t testing.TB) {
	t.Helper()
	if _, err := s.release.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
}

// killInit kills the only child that the start has.
func (s *stopped) killInit(t testing.TB) {
	t.Helper()
	pids := children(s.Cmd.Process.Pid)
	if len(pids) != 1 {
		t.Fatalf("the start has the children %v, want its init", pids)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	netsetuptest.Poll(t, func() error {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids[0])); err == nil && !strings.Contains(string(stat), ") Z ") {
			return errors.New("the init lives")
		}
		return nil
	})
}

// children reads those of each thread of pid (CONFIG_PROC_CHILDREN).
func children(pid int) (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for s := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// awaitTrap waits until the shell that the init has become catches sig.
func (s *stopped) awaitTrap(t testing.TB, sig unix.Signal) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		for _, pid := range children(s.Cmd.Process.Pid) {
			status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			f := fields(string(status))
			mask, err := strconv.ParseUint(f["SigCgt"], 16, 64)
			if err == nil && f["Name"] == "sh" && mask&(1<<(sig-1)) != 0 {
				return nil
			}
		}
		return fmt.Errorf("the program does not catch %s", unix.SignalName(sig))
	})
}
