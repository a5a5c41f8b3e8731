package netsetup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const hostDeviceNet = `{"type": "host-device", "device": "eth9"}`

// office is a device with all that one can have: far9 is its other end. One ip for many
// commands, for the sake of emulated machines.
const office = `
ip -batch - <<END
link add eth9 mtu 1400 address 02:00:00:00:00:09 type veth peer name far9 mtu 1400
link set far9 up
link property add dev eth9 altname office-uplink-with-a-long-name altname office9
link set eth9 alias "to the office" txqueuelen 77 multicast off
END
echo 2 >/proc/sys/net/ipv4/conf/eth9/rp_filter
echo 0 >/proc/sys/net/ipv6/conf/eth9/accept_ra
echo 1 >/proc/sys/net/ipv6/conf/eth9/keep_addr_on_down
echo 41000 >/proc/sys/net/ipv4/neigh/eth9/base_reachable_time_ms
ip -batch - <<END
link set eth9 up
addr add 10.9.0.2/24 brd + label eth9:a dev eth9
addr add 10.9.0.3/24 brd + dev eth9
addr add 10.8.0.1 peer 10.8.0.2/32 dev eth9
addr add 10.7.0.1/24 valid_lft 3000 preferred_lft 2000 dev eth9
addr add 10.6.0.1/24 metric 77 noprefixroute dev eth9
addr add fd00:9::2/64 nodad dev eth9
addr add fd00:9::3/64 dev eth9 valid_lft 3000 preferred_lft 0
addr add fd00:8::3/64 nodad noprefixroute home dev eth9
route add default via 10.9.0.1 metric 50
route add 10.60.0.0/16 via 10.9.0.1 src 10.9.0.3 mtu 1300 proto static
route add 10.61.0.0/16 via 10.61.0.1 dev eth9 onlink
route add 10.62.0.0/16 dev eth9 table 100 scope link
route add 10.63.0.0/16 table 100 nexthop via 10.9.0.1 weight 3 nexthop via 10.9.0.4 weight 1
route add 10.64.0.0/16 tos 0x10 via 10.65.0.1 dev eth9 onlink
route add default via fd00:9::1 dev eth9 metric 50
route add fd00:60::/64 via fd00:9::1 src fd00:8::3 dev eth9 table 200
route add fd00:61::/64 nexthop via fd00:9::1 dev eth9 nexthop via fd00:9::4 dev eth9
route add fd00:62::/64 dev eth9 expires 3000 pref high
neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth9 nud permanent
neigh add fd00:9::77 lladdr 02:00:00:00:00:77 dev eth9 nud permanent
END
`

// newOffice is a host with that device, a container, and how it all looked.
func newOffice(t *testing.T, script string) (*netsetuptest.Host, testContainer, netsetuptest.Snapshot) {
	t.Helper()
	host := netsetuptest.NewHost(t)
	host.Run(t, "sh", "-e", "-c", script).OK(t)
	c := newContainer(t, host, "web")
	host.Run(t, "mkdir", "-m", "700", "-p", "/run/nsinit", loanDir).OK(t)
	for _, l := range host.Links(t) {
		awaitUsable(t, host, l.IfName)
	}
	return host, c, officeNow(t, host)
}

// awaitUsable waits until the kernel has looked at all addresses.
func awaitUsable(t *testing.T, host *netsetuptest.Host, name string) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		for _, a := range host.Link(t, name).AddrInfo {
			if a.Tentative {
				return fmt.Errorf("%s is tentative", a.Local)
			}
		}
		return nil
	})
}

// officeNow is a snapshot with what that leaves out: neighbours, and lives in hundreds of
// seconds.
func officeNow(t *testing.T, host *netsetuptest.Host) netsetuptest.Snapshot {
	t.Helper()
	s := host.Snapshot(t)
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(host.Run(t, "ip", family, "neigh", "show", "nud", "permanent").OK(t).Stdout) {
			s = append(s, "neighbour "+strings.Replace(strings.TrimSpace(line), " ", ": ", 1))
		}
	}
	type lives struct {
		AddrInfo []struct {
			Local string
			Valid int `json:"valid_life_time"`
			Pref  int `json:"preferred_life_time"`
		} `json:"addr_info"`
	}
	for _, l := range netsetuptest.Decode[[]lives](t, host.Run(t, "ip", "-j", "addr", "show").OK(t)) {
		for i, a := range l.AddrInfo {
			s = append(s, fmt.Sprintf("life of %d %s: %d %d", i, a.Local, (a.Valid+99)/100, (a.Pref+99)/100))
		}
	}
	for _, name := range []string{"eth9", "far9"} {
		l := host.Link(t, name)
		s = append(s, fmt.Sprintf("index of %s: %d", name, l.IfIndex))
	}
	slices.Sort(s)
	return s
}

func wantHome(t *testing.T, host *netsetuptest.Host, want netsetuptest.Snapshot) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(want, officeNow(t, host)); d != "" {
			return errors.New("the host is not as it was (- before, + now):\n" + d)
		}
		return nil
	})
}

// lent is what a loan has recorded.
type lent struct{ objects []Object }

func (l *lent) record(o Object) error { l.objects = append(l.objects, o); return nil }

// undo brings all home, twice, and returns what was said.
func (l *lent) undo(t *testing.T, host *netsetuptest.Host) (warnings []string) {
	t.Helper()
	for range 2 {
		if err := l.tryUndo(host, &warnings); err != nil {
			t.Errorf("undo: %v", err)
		}
	}
	return warnings
}

func (l *lent) tryUndo(host *netsetuptest.Host, warnings *[]string) error {
	return onHost(host, func(h *Host) error {
		h.Warn = func(line string) { *warnings = append(*warnings, line) }
		var errs []error
		for _, o := range slices.Backward(l.objects) {
			errs = append(errs, Undo(context.Background(), h, o))
		}
		return errors.Join(errs...)
	})
}

func TestHostDeviceComesHome(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	p := planOf(t, hostDeviceNet)
	var l lent
	a, err := c.attach(host, p, nil, l.record)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	eth := c.Link(t, "eth0")
	wantEqual(t, "inside", fmt.Sprintln(eth.MTU, eth.Address, eth.Alias, eth.Up(), eth.Addrs(4), eth.Addrs(6)), "1400 02:00:00:00:00:09 eth9 true [] []\n")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	wantEqual(t, "attachment", fmt.Sprintln(a.HostDevice, a.MAC, a.MTU), "eth9 02:00:00:00:00:09 1400\n")
	wantEqual(t, "records", len(l.objects), 1)

	// The container does what it can to it.
	c.Run(t, "sh", "-e", "-c", `
		ip link set eth0 down
		ip link set eth0 name other mtu 1300 address 02:00:00:00:00:aa alias mine txqueuelen 5 multicast on
		ip link property del dev other altname office9
		ip link set other up promisc on
		ip addr add 10.1.0.1/24 dev other
		ip link add eth9 type veth peer name eth10`).OK(t)
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	wantHome(t, host, before)
}
