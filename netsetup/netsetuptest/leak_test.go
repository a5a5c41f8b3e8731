package netsetuptest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// recorder is a test that notes its failures instead of having them.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return len(r.errors) > 0 }
func (r *recorder) Skipped() bool    { return false }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func TestLeftoversFailTheTest(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	for want, do := range map[string]string{
		"process sleep":         "sleep 60 >/dev/null 2>&1 &",
		"mount /mnt":            "mount -t tmpfs x /mnt",
		"file /run/netns/left":  "mkdir -p /run/netns && : >/run/netns/left",
		"cgroup /left":          "cd /sys/fs/cgroup; [ -d unified ] && cd unified; mkdir left",
		"mount /run/netns/left": "ip netns add left",
		"":                      "ip link add br0 type bridge; ip netns add gone; ip netns del gone", // what goes with the host
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			r := &recorder{TB: t}
			h := netsetuptest.NewHost(r)
			h.Run(t, "sh", "-c", do).OK(t)
			cgroup := h.Cgroup()
			r.end()
			if got := strings.Join(r.errors, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("%s: errors %q, want %q", do, got, want)
			}
			if _, err := os.Stat(cgroup); err == nil {
				t.Errorf("%s is still there", cgroup)
			}
		})
	}
}

// Whatever ran on a host ends with it.
func TestHostTakesEverythingWithIt(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	r := &recorder{TB: t}
	h := netsetuptest.NewHost(r)
	h.Dirty()
	h.Outside(t)
	mark := filepath.Base(h.Cgroup())
	h.Run(t, "sh", "-c", "setsid sleep 60 "+mark+" >/dev/null 2>&1 & exec sleep 0.01 "+mark)
	r.end()
	if len(r.errors) > 0 {
		t.Error(r.errors)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), mark) && p != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			t.Errorf("%s: %q still runs", p, b)
		}
	}
}

func TestHostsDontSeeEachOther(t *testing.T) {
	t.Parallel()
	a, b := netsetuptest.NewHost(t), netsetuptest.NewHost(t)
	before := b.Snapshot(t)
	a.Run(t, "sh", "-c", "ip link add br0 type bridge; mkdir /run/x; mount -t tmpfs x /mnt; sysctl -qw net.ipv4.ip_forward=1").OK(t)
	if d := netsetuptest.Diff(before, b.Snapshot(t)); d != "" {
		t.Errorf("one host changed the other:\n%s", d)
	}
	a.Run(t, "umount", "/mnt").OK(t)
}
