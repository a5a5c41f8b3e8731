package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func sleepMillis(n int) { time.Sleep(time.Duration(n) * time.Millisecond) }

// shell runs text on the host, where $nsinit is the binary and $root a rootfs.
func (bed *faultBed) shell(t testing.TB, text string) netsetuptest.Result {
	t.Helper()
	cmd := bed.Command("sh", "-c", text)
	cmd.Env = append(cmd.Env, "nsinit="+nsinitBin, "root="+bed.root)
	return bed.RunCmd(t, cmd)
}

// failsClearly wants success, or nsinit's exit code with one line; never a crash's trace.
func failsClearly(r netsetuptest.Result) error {
	if r.Code == 0 {
		return nil
	}
	if r.Code != 125 {
		return fmt.Errorf("exit code %d (%v): %q", r.Code, r.Signal, r.Stderr)
	}
	return oneLine(r)
}

// A caller's standard output that is closed, full or broken is the program's business; nsinit's own prints say so.
func TestBadStdout(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	const run = "$nsinit run --rootfs $root --network bridge -- "
	for text, want := range map[string]int{
		run + "true >&-":                 0,
		run + "true <&- >&- 2>&-":        0,
		run + "true >/dev/full":          0,
		run + "echo hello >/dev/full":    1,
		"$nsinit version >/dev/full":     125,
		"$nsinit list --json >/dev/full": 125,
		// The reader has gone before the program writes; process 1 is deaf to SIGPIPE, and is told by EPIPE.
		"mkfifo /run/f; sleep 1 </run/f & exec 9>/run/f; kill $!; wait; " + run + "sh -c 'echo hello || exit 7' >&9": 7,
	} {
		if r := bed.shell(t, text); r.Code != want {
			t.Errorf("%s\nexit code %d, want %d: %s", text, r.Code, want, r.Stderr)
		}
	}
	bed.Run(t, "rm", "-f", "/run/f").OK(t)
	bed.Await(t, bed.before)
}

// A full state directory fails the start, wherever it hits, and gc still works.
func TestFullStateDirectory(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	inodes := []int{2, 4, 5, 6, 7, 8, 9, 10, 12}
	if few() {
		inodes = inodes[3:6]
	}
	for _, inodes := range inodes {
		mount := fmt.Sprintf("mkdir -p /run/small && mount -t tmpfs -o nr_inodes=%d,size=1m,mode=700 tmpfs /run/small", inodes)
		bed.shell(t, mount).OK(t)
		bed.tryFull(t, fmt.Sprintf("%d inodes", inodes))
	}
	for _, pages := range []int{1, 2, 3} {
		mount := fmt.Sprintf("mkdir -p /run/small && mount -t tmpfs -o size=%dk,mode=700 tmpfs /run/small", 4*pages)
		bed.shell(t, mount).OK(t)
		bed.tryFull(t, fmt.Sprintf("%d pages", pages))
	}
	bed.Await(t, bed.before)
}

func (bed *faultBed) tryFull(t testing.TB, what string) {
	t.Helper()
	r := bed.shell(t, "$nsinit --root /run/small run --rootfs $root --network bridge --netns-name full -- true")
	if err := failsClearly(r); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if r := bed.shell(t, "$nsinit --root /run/small gc"); failsClearly(r) != nil {
		t.Errorf("%s: gc: exit code %d: %s", what, r.Code, r.Stderr)
	}
	bed.shell(t, "umount /run/small && rmdir /run/small").OK(t)
}

// With too few descriptors the start fails with one line.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	limits := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32, 40, 64, 72}
	if few() {
		limits = []int{5, 9, 13, 18, 72}
	}
	for _, n := range limits {
		r := bed.shell(t, fmt.Sprintf("ulimit -n %d; exec $nsinit run --rootfs $root --network bridge --netns-name few -- true", n))
		if err := failsClearly(r); err != nil {
			t.Errorf("ulimit -n %d: %v", n, err)
		}
		if strings.Contains(r.Stderr, "invalid argument") {
			t.Errorf("ulimit -n %d: the limit is not named: %s", n, r.Stderr)
		}
		if n == limits[len(limits)-1] && r.Code != 0 {
			t.Errorf("ulimit -n %d is enough, but: %s", n, r.Stderr)
		}
	}
	bed.nsinit(t, "gc").OK(t) // an undo may lack descriptors, too
	bed.Await(t, bed.before)
}

// A limit of namespaces is named. It is a user namespace's own, so that the machine's stays.
func TestNoMoreNamespaces(t *testing.T) {
	t.Parallel()
	bed := newFaultBed(t)
	for _, kind := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
		r := bed.shell(t, "exec unshare --map-root-user --mount sh -c 'mount -t tmpfs tmpfs /run && echo 0 >/proc/sys/user/max_"+kind+"_namespaces && exec $nsinit run --rootfs $root -- true'")
		if r.Code != 125 || oneLine(r) != nil || !strings.Contains(r.Stderr, "user.max_") {
			t.Errorf("%s: exit code %d: %q, want one line with the limit", kind, r.Code, r.Stderr)
		}
	}
	bed.Await(t, bed.before)
}
