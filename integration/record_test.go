package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

const victimDir = "/run/nsinit/containers/victim/"

// leftover leaves a container whose foreground parent was killed after it had been told to run.
func (bed *faultBed) leftover(t testing.TB) {
	t.Helper()
	f := fault{gate: gate{"host", "running", "after"}}
	s := bed.stopAt(t, f.gate, f.args(bed.root)...)
	s.Signal(t, unix.SIGKILL)
	s.Wait(t)
}

// edit changes a file of the container's record.
func (bed *faultBed) edit(t testing.TB, name string, change func(string) string) {
	t.Helper()
	path := bed.Path(victimDir + name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, change(string(b)))
}

// A journal's last line may be torn, and what it names was never made.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	bed.leftover(t)
	bed.edit(t, "objects", func(s string) string { return s + "\n" + `{"kind":"netns-name","na` })
	bed.nsinit(t, "gc").OK(t)
	bed.Await(t, bed.before)
}

// A record that nsinit can't understand is left as it is, and said.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	changes := map[string]func(string) string{
		"truncated": func(s string) string { return s[:len(s)/2] },
		"empty":     func(string) string { return "" },
		"garbage":   func(string) string { return "\x00\xff not JSON \n" },
		"newer":     func(s string) string { return strings.Replace(s, `"version":1`, `"version":2`, 1) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bed := newFaultBed(t)
			bed.leftover(t)
			var whole string
			bed.edit(t, "state.json", func(s string) string { whole = s; return change(s) })
			kept := bed.Snapshot(t).Grep("victim")
			wantRefusal(t, bed.nsinit(t, "gc"), "victim")
			wantRefusal(t, bed.nsinit(t, "delete", "victim"), "state.json")
			wantRefusal(t, bed.nsinit(t, "delete", "--force", "victim"), "state.json")
			wantRefusal(t, bed.nsinit(t, "state", "victim"), "state.json")
			if r := bed.nsinit(t, "list").OK(t); !strings.Contains(r.Stdout, "unreadable") {
				t.Errorf("list: %s", r.Stdout)
			}
			if d := netsetuptest.Diff(kept, bed.Snapshot(t).Grep("victim")); d != "" {
				t.Errorf("changed:\n%s", d)
			}
			bed.edit(t, "state.json", func(string) string { return whole })
			bed.nsinit(t, "gc").OK(t)
			bed.Await(t, bed.before)
		})
	}
}

// wantRefusal wants exit code 125 and lines of nsinit's, one of which names what it is about.
func wantRefusal(t testing.TB, r netsetuptest.Result, about string) {
	t.Helper()
	if r.Code != 125 || !strings.HasPrefix(r.Stderr, "nsinit: ") || !strings.Contains(r.Stderr, about) {
		t.Errorf("%s\nexit code %d: %q, want 125 and %s named", strings.Join(r.Args[1:], " "), r.Code, r.Stderr, about)
	}
}

// After a boot a record's pid means nothing.
func TestOtherBoot(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	out := bed.detached(t, "victim", "--rootfs", bed.root, "--network", "bridge", "--", "sleep", "1000")
	s := out.state(t)
	id := bed.Path("/run/boot_id")
	write(t, id, "00000000-0000-4000-8000-000000000000\n")
	bed.Run(t, "mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id").OK(t)
	if got := out.state(t); got.Status != "stopped" {
		t.Errorf("status %s, want stopped", got.Status)
	}
	wantRefusal(t, bed.nsinit(t, "kill", "victim"), "not running")
	bed.Run(t, "umount", "/proc/sys/kernel/random/boot_id").OK(t)
	if got := out.state(t); got.Status != "running" || got.Pid != s.Pid {
		t.Errorf("it was touched: %+v", got)
	}
}

// A pid that was given to another process is never signalled, not by kill, delete or gc.
func TestReusedPid(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	bed.leftover(t)
	time.Sleep(50 * time.Millisecond) // a process is known by its pid and the hundredth of a second in which it began
	other := bed.Start(t, bed.Command("sh", "-c", "echo $$; exec sleep 1000"))
	pid := strings.TrimSpace(other.AwaitOutput(t, "\n"))
	netsetuptest.Poll(t, func() error {
		if s := decodeState(t, bed); s.Status != "stopped" {
			return fmt.Errorf("is %s", s.Status)
		}
		return nil
	})
	bed.edit(t, "state.json", func(s string) string {
		head, tail, ok := strings.Cut(s, `"pid":`)
		_, rest, ok2 := strings.Cut(tail, ",")
		if !ok || !ok2 {
			t.Fatalf("no pid in %s", s)
		}
		return head + `"pid":` + pid + "," + rest
	})
	if s := decodeState(t, bed); s.Status != "stopped" {
		t.Errorf("status %s of a container whose pid is another's", s.Status)
	}
	wantRefusal(t, bed.nsinit(t, "kill", "victim", "KILL"), "not running")
	bed.nsinit(t, "gc").OK(t)
	if err := other.Cmd.Process.Signal(unix.Signal(0)); errors.Is(err, os.ErrProcessDone) {
		t.Fatal("gc killed a process that is not the container's")
	}
	other.Signal(t, unix.SIGKILL)
	<-other.Done()
	bed.Await(t, bed.before)
}

func decodeState(t testing.TB, bed *faultBed) state {
	t.Helper()
	return netsetuptest.Decode[state](t, bed.nsinit(t, "state", "victim").OK(t))
}

// An id that was a killed start's can be had again once it was collected, and not before.
func TestReusedID(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	bed.leftover(t)
	again := []string{"--rootfs", bed.root, "--name", "victim", "--network", "bridge", "--netns-name", "victim", "--", "true"}
	wantRefusal(t, bed.run(t, again...), "in use")
	bed.nsinit(t, "gc").OK(t)
	bed.run(t, again...).OK(t)
	bed.Await(t, bed.before)
}

// gc and delete are killed at moments that chance gives, again and again, until one of them is done.
func TestKilledWhileRemoving(t *testing.T) {
	t.Parallel()
	tries := 24
	if few() {
		tries = 3
	}
	bed := newFaultBed(t)
	for i := range tries {
		bed.leftover(t)
		verb := []string{"gc"}
		if i%2 == 1 {
			verb = []string{"delete", "--force", "victim"}
		}
		p := bed.Start(t, bed.command(verb...))
		sleepMillis(i)
		_ = p.Cmd.Process.Kill() // it may be done
		<-p.Done()
		bed.nsinit(t, "gc").OK(t)
		bed.Await(t, bed.before)
	}
}
