package ipam

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelRoutes reads the routes of a network namespace of its own.
func TestKernelRoutes(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("no ip command (iproute2) to make routes with")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"link", "add", "d0", "type", "bridge"},
			{"addr", "add", "10.200.0.1/24", "dev", "d0"},
			{"addr", "add", "fd00:77::1/64", "dev", "d0", "nodad"},
			{"link", "set", "d0", "up"},
			{"route", "add", "10.200.32.0/20", "dev", "d0", "table", "77"},
			{"route", "add", "blackhole", "10.200.48.0/20"},
		} {
			if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, out)
				return
			}
		}
		checkKernelRoutes(t)
	}()
	<-done
}

func checkKernelRoutes(t *testing.T) {
	routes, err := kernel{}.routes(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	d0, err := kernel{}.index("d0")
	if err != nil || d0 == 0 || (kernel{}).linkName(d0) != "d0" {
		t.Errorf("index of d0: %d, %v", d0, err)
	}
	if none, err := (kernel{}).index("d1"); none != 0 || err != nil {
		t.Errorf("index of no link: %d, %v", none, err)
	}
	for subnet, want := range map[string]bool{
		"10.200.0.0/20": true, "10.200.16.0/20": false, "10.200.32.0/20": true, "10.200.48.0/20": true,
		"127.0.0.0/20": true, "fd00:77::/64": true, "fd00:78::/64": false,
	} {
		if got := usedBy(netip.MustParsePrefix(subnet), routes, 0); got != want {
			t.Errorf("%s: in use is %v, want %v, of %v", subnet, got, want, routes)
		}
	}
	if usedBy(netip.MustParsePrefix("10.200.0.0/24"), routes, d0) {
		t.Error("the bridge's own route is in the way")
	}
	p, err := (pools{}).fill(func(p netip.Prefix) bool { return !usedBy(p, routes, 0) }, true, true)
	if err != nil || p.v4.String() != "10.200.16.0/20" {
		t.Errorf("%+v, %v", p, err)
	}
}
