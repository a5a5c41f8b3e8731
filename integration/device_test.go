package integration

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// deviceOf makes the device eth9, with addresses and routes. A veth's other end is far9 on the host; a
// dummy is like a card without a cable that says that it has one. Kernels without a kind skip t.
func deviceOf(t testing.TB, m *machine, kind string) {
	t.Helper()
	add := map[string]string{
		"veth":  "ip link add eth9 type veth peer name far9; ip link set far9 up",
		"dummy": "ip link add eth9 type dummy",
	}[kind]
	if r := m.Run(t, "sh", "-e", "-c", add); r.Code != 0 {
		t.Skipf("this kernel has no devices of kind %s: %s", kind, r.Stderr)
	}
	m.Run(t, "sh", "-e", "-c", `
ip link property add dev eth9 altname office9
ip link set eth9 address 02:00:00:00:00:09 mtu 1400 alias office
echo 2 >/proc/sys/net/ipv4/conf/eth9/rp_filter
ip link set eth9 up
ip addr add 10.9.0.2/24 brd + dev eth9
ip addr add 10.9.0.3/24 dev eth9 valid_lft 3000 preferred_lft 2000
ip addr add fd00:9::2/64 nodad dev eth9
ip route add 10.60.0.0/16 via 10.9.0.1 metric 50
ip route add 10.61.0.0/16 via 10.9.0.1 table 100
ip -6 route add fd00:60::/64 via fd00:9::1 src fd00:9::2 dev eth9 table 100`).OK(t)
	netsetuptest.Poll(t, func() error {
		for _, l := range m.Links(t) {
			if slices.ContainsFunc(l.AddrInfo, func(a netsetuptest.Addr) bool { return a.Tentative }) {
				return fmt.Errorf("%s has a tentative address", l.IfName)
			}
		}
		return nil
	})
}

// hostDeviceFile is a network file of the plugin host-device.
func hostDeviceFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "office.conflist")
	write(t, path, `{"cniVersion": "1.1.0", "name": "office", "plugins": [{"type": "host-device", "hwaddr": "02:00:00:00:00:09",
		"ipam": {"type": "static", "addresses": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}, {"address": "fd00:9::7/64"}],
		"routes": [{"dst": "0.0.0.0/0"}]}}]}`)
	return path
}

func TestDeviceComesHome(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"veth", "dummy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			deviceOf(t, m, kind)
			file := hostDeviceFile(t)
			m.run(t, "--net-device", "eth9", "--", "true").OK(t) // makes what stays
			before := m.Settled(t).Without("file /var/lib/cni", "file /var/lib/nsinit")
			home := func() {
				t.Helper()
				netsetuptest.Poll(t, func() error {
					if d := netsetuptest.Diff(before, m.Snapshot(t).Without("file /var/lib/cni", "file /var/lib/nsinit")); d != "" {
						return fmt.Errorf("the host is not as it was (- before, + now):\n%s", d)
					}
					return nil
				})
			}
			inside := func(want string, args ...string) {
				t.Helper()
				r := m.run(t, with(args, script("ip -br addr | awk '!/^lo/ { print $1, $3, $4 }' | sed 's/@[^ ]*//'"))...).OK(t)
				if r.Line() != want || r.Stderr != "" {
					t.Errorf("%s: %q, want %q; said %q", args, r.Line(), want, r.Stderr)
				}
				home()
			}
			inside("eth9 10.9.0.2/24 fd00:9::2/64", "--net-device", "eth9")
			inside("lan0 10.9.0.2/24 fd00:9::2/64", "--net-device", "office9:lan%d", "--network", "none")
			inside("eth0 10.9.0.2/24 fd00:9::2/64", "--net-device", "eth9:eth0", "--userns=private")
			inside("eth0 10.9.0.7/24 fd00:9::7/64", "--network", file)
			inside("web0 10.9.0.7/24 fd00:9::7/64", "--network", file+":interface_name=web0,mtu=1300,mac=02:00:00:00:00:aa")

			c := m.detached(t, "web", "--network", file, "sleep", "100")
			r := m.run(t, "--net-device", "eth9", "--", "true").Want(t, 125)
			if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "--net-device eth9: eth9: look up: no such device") {
				t.Errorf("%v: %s", err, r.Stderr)
			}
			m.nsinit(t, "kill", c.id, "KILL").OK(t)
			netsetuptest.Poll(t, func() error {
				if s := c.state(t).Status; s != "stopped" {
					return fmt.Errorf("is %s", s)
				}
				return nil
			})
			m.nsinit(t, "delete", c.id).OK(t)
			home()
			c = m.detached(t, "web", "--net-device", "eth9:lan%d", "sleep", "100")
			m.nsinit(t, "network", "detach", c.id, "lan0").OK(t)
			if left := c.node(t).Links(t); len(left) != 1 {
				t.Errorf("inside after detach: %v", netsetuptest.Names(left))
			}
			m.Run(t, "ip", "link", "show", "dev", "eth9", "up").OK(t)
			m.nsinit(t, "network", "attach", c.id, file).OK(t)
			c.node(t).Link(t, "eth0")
			m.nsinit(t, "delete", "--force", c.id).OK(t)
			home()
			if r := m.run(t, "--network", file, "--", "/no/such").Want(t, 127); !strings.HasPrefix(r.Stderr, "nsinit: ") {
				t.Errorf("said %q", r.Stderr)
			}
			home()
		})
	}
}

// In a namespace that the container joins the device stays: that is somebody else's.
func TestDeviceStaysInJoined(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	deviceOf(t, m, "veth")
	m.Run(t, "ip", "netns", "add", "blue").OK(t)
	blue := m.Named(t, "blue")
	m.run(t, "--network", "ns:/run/netns/blue", "--net-device", "eth9:eth0", "--", "ip", "link", "show", "up", "dev", "eth0").OK(t)
	if got := blue.Link(t, "eth0"); !got.Up() || !slices.Equal(got.Addrs(4), []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}) {
		t.Errorf("in the namespace: %+v", got)
	}
	if left := m.Snapshot(t).Grep("/run/nsinit/devices/"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	m.Run(t, "ip", "netns", "del", "blue").OK(t)
}

func TestDeviceFlagFaults(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--net-device", ""}, "no device given"},
		{[]string{"--net-device", "eth9:"}, "no name behind the colon"},
		{[]string{"--net-device", "eth9:a/b"}, `'/' is not allowed`},
		{[]string{"--net-device", "eth9", "--net-device", "eth9:x"}, "given twice"},
		{[]string{"--net-device", "eth9", "--network", "host"}, "not with --network host"},
		{[]string{"--net-device", "eth9:x", "--net-device", "eth8:x"}, `interface "x": network`},
	} {
		r := m.run(t, with(test.args, []string{"--", "true"})...)
		if r.Code != 125 || !strings.Contains(r.Stderr, test.want) || oneLine(r) != nil {
			t.Errorf("%s: %d, %q, want %q", test.args, r.Code, r.Stderr, test.want)
		}
	}
}

// What is on the other side is reached, in both families, and reaches the container.
func TestDeviceCarriesTraffic(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	deviceOf(t, m, "veth")
	m.Run(t, "sh", "-e", "-c", "ip link set far9 mtu 1400; ip addr add 10.9.0.1/24 dev far9; ip addr add fd00:9::1/64 nodad dev far9").OK(t)
	for _, flags := range [][]string{{"--net-device", "eth9:eth0"}, {"--network", hostDeviceFile(t)}} {
		c := m.detached(t, "web", with(flags, []string{"sleep", "100"})...)
		inside := c.node(t)
		v4, v6 := c.addrs(t)
		echo, far := inside.Echo(t), m.Echo(t)
		for _, to := range []netip.Addr{v4, v6} {
			if err := reaches(m.Node, to, echo, 1400); err != nil {
				t.Errorf("%s: %v", flags, err)
			}
		}
		for _, to := range []string{"10.9.0.1", "fd00:9::1"} {
			if err := reaches(inside, netip.MustParseAddr(to), far, 1400); err != nil {
				t.Errorf("%s: %v", flags, err)
			}
		}
		m.nsinit(t, "delete", "--force", c.id).OK(t)
	}
}

// TestDeviceKilledAnywhere is TestKilledAnywhere for a start that has a device of the host, and in which the
// kernel must not have the device.
func TestDeviceKilledAnywhere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	deviceOf(t, m, "veth")
	bed := newFaultBedOn(t, m, "--net-device", "eth9:lan0")
	steps := []string{"host:network", "host:record", "host:release", "host:running", "init:network", "init:exec"}
	for _, f := range faults(t) {
		if slices.Contains(steps, f.side+":"+f.step) && f.signal == 0 && f.extra() == nil {
			t.Run(f.String(), func(t *testing.T) { bed.try(t, f) })
		}
	}
}

// TestDeviceKilledAnytime kills starts, ends and gc after a time that no gate knows; the last gc does the rest.
func TestDeviceKilledAnytime(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	deviceOf(t, m, "veth")
	bed := newFaultBedOn(t, m, "--net-device", "eth9:lan0")
	rounds := 24
	if few() {
		rounds = 4
	}
	took := bed.run(t, "--rootfs", bed.root, "--net-device", "eth9", "--", "true").OK(t).Time
	for i := range rounds {
		start := bed.Start(t, bed.command("run", "--rootfs", bed.root, "--name", "victim", "--net-device", "eth9:lan0", "--", "true"))
		time.Sleep(took * time.Duration(i) / time.Duration(rounds))
		_ = start.Cmd.Process.Signal(unix.SIGKILL) // it may have ended
		start.Wait(t)
		for part := range 3 {
			gc := bed.Start(t, bed.command("gc"))
			time.Sleep(took * time.Duration(part*rounds+i) / time.Duration(6*rounds))
			_ = gc.Cmd.Process.Signal(unix.SIGKILL)
			gc.Wait(t)
		}
		if r := bed.nsinit(t, "gc").OK(t); r.Stderr != "" {
			t.Errorf("round %d: gc: %s", i, r.Stderr)
		}
		bed.Await(t, bed.before)
	}
}
