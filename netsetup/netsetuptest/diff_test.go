package netsetuptest_test

import (
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	a := netsetuptest.Snapshot{"link br0: mtu=1500 up=true", "link lo: up=true", "mount /x: tmpfs", "mount /x: tmpfs"}
	b := netsetuptest.Snapshot{"addr lo 10.0.0.1/8: scope=host", "link br0: mtu=1400 up=true", "link lo: up=true", "mount /x: tmpfs"}
	want := "+ addr lo 10.0.0.1/8: scope=host\n" +
		"~ link br0: was \"mtu=1500\", is \"mtu=1400\"\n" +
		"- mount /x: tmpfs"
	if got := netsetuptest.Diff(a, b); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := netsetuptest.Diff(a, a); got != "" {
		t.Errorf("differs from itself: %s", got)
	}
}

func TestParseMounts(t *testing.T) {
	t.Parallel()
	got := netsetuptest.ParseMounts(`22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:21 /a\040b /run rw,nosuid - tmpfs tmpfs rw,size=4k
24 22 0:21 /x /y ro master:3 propagate_from:2 - tmpfs tmpfs rw
nonsense
`)
	if len(got) != 3 {
		t.Fatalf("%d mounts, want 3: %+v", len(got), got)
	}
	if got[0].Propagation != "shared" || got[1].Propagation != "" || got[2].Propagation != "master propagate_from" {
		t.Errorf("propagation %q, %q, %q", got[0].Propagation, got[1].Propagation, got[2].Propagation)
	}
	if m := got[1]; m.Root != `/a\040b` || m.Point != "/run" || !m.Has("nosuid") || !m.Has("size=4k") || m.Has("siz") {
		t.Errorf("%+v", m)
	}
}
