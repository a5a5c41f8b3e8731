package netsetuptest_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestHostIsAlone(t *testing.T) {
	t.Parallel()
	began := time.Now()
	h := netsetuptest.NewHost(t)
	t.Logf("made in %v", time.Since(began))
	if names := netsetuptest.Names(h.Links(t)); len(names) != 1 || names[0] != "lo" {
		t.Errorf("interfaces %v, want lo", names)
	}
	if got := h.Run(t, "cat", "/proc/1/comm").OK(t).Line(); got == "init" || got == "systemd" {
		t.Errorf("process 1 is %s, the machine's", got)
	}
	if got := h.Run(t, "cat", "/proc/self/cgroup").OK(t).Stdout; !strings.Contains(got, "0::/session\n") {
		t.Errorf("cgroups:\n%swant 0::/session", got)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		entries, err := os.ReadDir(h.Path(dir))
		if err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v, want empty", dir, entries, err)
		}
	}
	for _, ns := range []string{"net", "mnt", "pid", "ipc", "uts", "cgroup"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Run(t, "readlink", "/proc/self/ns/"+ns).OK(t).Line(); got == mine {
			t.Errorf("%s namespace is the machine's: %s", ns, got)
		}
	}
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	h := netsetuptest.NewHost(t)
	out, near := h.Outside(t), h.Peer(t, "near")
	for _, to := range []netip.Addr{out.V4, out.V6, near.V4, near.V6, netsetuptest.BeyondV4, netsetuptest.BeyondV6} {
		if err := h.Ping(to, 1000, time.Second); err != nil {
			t.Error(err)
		}
	}
	far := out.Echo(t)
	for _, a := range []netip.Addr{netsetuptest.BeyondV4, netsetuptest.BeyondV6} {
		if err := h.Exchange("udp", netip.AddrPortFrom(a, far.Port), 1400, time.Second); err != nil {
			t.Error(err)
		}
	}
	e := near.Echo(t)
	for _, a := range []netip.Addr{near.V4, near.V6} {
		for _, network := range []string{"tcp", "udp"} {
			if err := h.Exchange(network, netip.AddrPortFrom(a, e.Port), 1400, time.Second); err != nil {
				t.Error(err)
			}
		}
		if err := h.Exchange("udp", netip.AddrPortFrom(a, e.Port), 1500, time.Second); err == nil {
			t.Errorf("a datagram larger than the MTU arrived at %v", a)
		}
		if err := out.Exchange("tcp", netip.AddrPortFrom(a, e.Port), 1, 50*time.Millisecond); err == nil {
			t.Errorf("outside reaches %v through a host that does not forward", a)
		}
	}
	if seen := e.Seen(); len(seen) != 2 || seen[0] != near.HostV4 || seen[1] != near.HostV6 {
		t.Errorf("seen %v, want %v and %v", seen, near.HostV4, near.HostV6)
	}
}

func TestSnapshotSeesEveryChange(t *testing.T) {
	t.Parallel()
	h := netsetuptest.NewHost(t)
	h.Peer(t, "near")
	before := h.Snapshot(t)
	began := time.Now()
	defer func() { t.Logf("%d lines", len(before)) }()
	if d := netsetuptest.Diff(before, h.Snapshot(t)); d != "" {
		t.Fatalf("differs from itself:\n%s", d)
	}
	t.Logf("a snapshot takes %v", time.Since(began))
	cgroup := filepath.Dir(strings.Fields(h.Run(t, "sh", "-c", "ls -d /sys/fs/cgroup/unified/session /sys/fs/cgroup/session").Stdout)[0])
	for _, c := range []struct{ do, want, undo string }{
		{"ip link add br0 type bridge", "+ link br0", "ip link del br0"},
		{"ip link set to-near mtu 1400", `~ link to-near: was "mtu=1500", is "mtu=1400"`, "ip link set to-near mtu 1500"},
		{"ip addr add 10.1.0.1/24 dev lo", "+ addr lo 10.1.0.1/24", "ip addr del 10.1.0.1/24 dev lo"},
		{"ip route add 10.2.0.0/16 dev to-near table 7", "+ route4 10.2.0.0/16 dev to-near table 7", "ip route del 10.2.0.0/16 table 7"},
		{"ip -6 route add fd00::/64 dev to-near", "+ route6 fd00::/64", "ip -6 route del fd00::/64"},
		{"ip rule add from 10.2.0.0/16 table 7", "+ rule4", "ip rule del from 10.2.0.0/16"},
		{"nft add table inet t; nft add chain inet t c", "+ nft table inet t chain c", "nft delete table inet t"},
		{"echo 1 >/proc/sys/net/ipv4/ip_forward", "sysctl net/ipv4/ip_forward: was", "echo 0 >/proc/sys/net/ipv4/ip_forward"},
		{"mkdir " + cgroup + "/x", "+ cgroup /x", "rmdir " + cgroup + "/x"},
		{"mkdir /run/nsinit && echo 1 >/run/nsinit/f", `+ file /run/nsinit/f: -rw-r--r-- "1\n"`, "rm -r /run/nsinit"},
		{"mount -t tmpfs x /mnt", "+ mount /mnt: tmpfs x", "umount /mnt"},
		{"sleep 60 >/dev/null 2>&1 & echo $! >/run/pid", "+ process sleep: S (sleeping)", "kill `cat /run/pid`"},
	} {
		h.Run(t, "sh", "-c", c.do).OK(t)
		if d := netsetuptest.Diff(before, h.Snapshot(t)); !strings.Contains(d, c.want) {
			t.Errorf("after %s: want %s in\n%s", c.do, c.want, d)
		}
		h.Run(t, "sh", "-c", c.undo).OK(t)
		h.Await(t, before)
	}
}
