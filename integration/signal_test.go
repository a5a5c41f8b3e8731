package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A program that a signal kills: as process 1 it is deaf to most, so the one from outside is SIGKILL.
func TestExitCodeOfSignal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.start(t, with([]string{"--rootfs", newRootfs(t), "--name", "a"}, script("echo up; sleep 60"))...)
	p.AwaitOutput(t, "up")
	m.nsinit(t, "kill", "a", "KILL").OK(t)
	p.Wait(t).Want(t, 128+9)
	for _, sig := range []string{"SEGV", "ABRT", "TERM"} {
		want := map[string]int{"SEGV": 139, "ABRT": 134, "TERM": 143}[sig]
		m.run(t, with([]string{"--rootfs", newRootfs(t), "--init"}, script("kill -"+sig+" $$; sleep 9"))...).Want(t, want)
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	t.Parallel()
	long(t)
	for _, flags := range [][]string{nil, {"--init"}} {
		for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGQUIT, unix.SIGWINCH} {
			t.Run(fmt.Sprint(flags, sig), func(t *testing.T) {
				t.Parallel()
				m := newMachine(t)
				text := fmt.Sprintf("trap 'echo got it; exit 7' %d; echo up; while :; do sleep 0.01; done", sig)
				p := m.start(t, with([]string{"--rootfs", newRootfs(t)}, flags, script(text))...)
				p.AwaitOutput(t, "up")
				p.Signal(t, sig)
				if r := p.Wait(t).Want(t, 7); r.Stdout != "up\ngot it\n" {
					t.Errorf("stdout %q", r.Stdout)
				}
			})
		}
	}
}

// Stopped by signals while it starts, nsinit leaves nothing.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	root := newRootfs(t)
	m.run(t, "--rootfs", root, "--network", "bridge", "true").OK(t)
	before := m.Settled(t)
	for i := range 8 {
		p := m.start(t, "--rootfs", root, "--network", "bridge", "sleep", "60")
		time.Sleep(time.Duration(i*2) * time.Millisecond)
		p.Signal(t, unix.SIGTERM)
		select {
		case <-p.Done():
			if r := p.Wait(t); r.Code != 143 && r.Code != 125 && r.Signal != unix.SIGTERM {
				t.Errorf("interrupted after %d ms: exit code %d, %s", i*2, r.Code, r.Stderr)
			}
		case <-time.After(soon()):
			// It runs: sleep as process 1 is deaf to SIGTERM.
			p.Signal(t, unix.SIGKILL)
			<-p.Done()
			m.nsinit(t, "gc").OK(t)
		}
	}
	m.Await(t, before)
}

// A foreground container dies with its parent, however that ends, and gc removes what it held.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	long(t)
	for _, flags := range [][]string{nil, {"--init"}, {"--user", "alice"}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			root := newRootfs(t)
			m.run(t, "--rootfs", root, "--network", "bridge", "--netns-name", "blue", "true").OK(t)
			before := m.Settled(t)
			p := m.start(t, with([]string{"--rootfs", root, "--network", "bridge", "--netns-name", "blue"}, flags, script("echo up; sleep 60 & sleep 60"))...)
			p.AwaitOutput(t, "up")
			p.Signal(t, unix.SIGKILL)
			<-p.Done()
			netsetuptest.Poll(t, func() error {
				if left := m.Snapshot(t).Grep("process "); len(left) > 0 {
					return fmt.Errorf("still there: %v", left)
				}
				return nil
			})
			m.nsinit(t, "gc").OK(t)
			m.Await(t, before)
		})
	}
}
