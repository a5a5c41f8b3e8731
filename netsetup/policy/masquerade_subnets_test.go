package policy

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// onOwnBridge says that the bridge nsi0 is the network's own.
func onOwnBridge(a netsetup.Attachment) netsetup.Attachment {
	a.Subnets = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")}
	return a
}

// The first container of a network with a bridge of its own has its subnets masqueraded. All others change nothing, and
// leave nothing to be undone.
func TestMasqueradeSubnets(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.records, nil }
	first, a1 := l.container(t, "nsi0", 77, 2)
	second, a2 := l.container(t, "nsi0", 77, 3)
	check(t, l.masquerade(onOwnBridge(a1)))
	table, records := l.ruleset(t), slices.Clone(l.records)
	for _, want := range []string{`10.77.0.0/24 . "nsi0"`, `fd77::/64 . "nsi0"`} {
		if !strings.Contains(table, want) {
			t.Errorf("no %s in\n%s", want, table)
		}
	}
	for _, o := range records {
		if o.Owner != "" {
			t.Errorf("%+v belongs to a container", o)
		}
	}
	check(t, l.masquerade(onOwnBridge(a2)))
	if got := l.ruleset(t); got != table || !slices.Equal(l.records, records) {
		t.Errorf("a second container changed the table, or recorded more than %v: %v\n%s", records, l.records, got)
	}
	out := l.out.Echo(t)
	for _, bridgeCalls := range []string{"0", "1"} {
		l.bridgeCalls(t, bridgeCalls)
		for _, c := range []*netsetuptest.Node{first, second} {
			exchanges(t, c, out, l.out.V4, l.out.V6)
		}
		echo := second.Echo(t)
		exchanges(t, first, echo, a2.Addresses[0].Addr(), a2.Addresses[1].Addr())
		if got, want := echo.Seen(), []netip.Addr{a1.Addresses[0].Addr(), a1.Addresses[1].Addr()}; !slices.Equal(got, want) {
			t.Errorf("a neighbour saw %v, want %v (bridge-nf-call %s)", got, want, bridgeCalls)
		}
	}
	if got, want := out.Seen(), []netip.Addr{l.out.HostV4, l.out.HostV6}; !slices.Equal(got, want) {
		t.Errorf("the outside saw %v, want %v", got, want)
	}
	for range 2 {
		l.wantUndone(t, "10.77.0.0", "fd77::")
	}
}

// An address of the subnet that comes by another device is somebody else's.
func TestSubnetsOfOneBridgeOnly(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(onOwnBridge(a)))
	l.ip(t, "link add nsi1 type bridge")
	l.ip(t, "addr add 10.78.0.1/24 dev nsi1")
	l.ip(t, "addr add fd78::1/64 dev nsi1 nodad")
	l.ip(t, "link set nsi1 up")
	other, oa := l.container(t, "nsi1", 78, 2)
	check(t, l.masquerade(oa)) // forwards
	l.ip(t, "-n c78-2 addr add 10.77.0.9/32 dev eth0")
	l.ip(t, "route add 10.77.0.9/32 dev nsi1")
	l.out.Run(t, "ip", "route", "add", "10.77.0.0/24", "via", l.out.HostV4.String()).OK(t)
	l.ip(t, "-n c78-2 route replace default via 10.78.0.1 src 10.77.0.9")
	out := l.out.Echo(t)
	check(t, other.Exchange("udp", netip.AddrPortFrom(l.out.V4, out.Port), 100, soon))
	if got, want := out.Seen(), []netip.Addr{netip.MustParseAddr("10.77.0.9")}; !slices.Equal(got, want) {
		t.Errorf("the outside saw %v, want %v", got, want)
	}
}

func TestSubnetsAfterFlush(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.records, nil }
	c, a := l.container(t, "nsi0", 77, 2)
	a = onOwnBridge(a)
	check(t, l.masquerade(a))
	differences := func() (diffs []netsetup.Difference) {
		check(t, l.Do(func() (err error) {
			diffs, err = Check(t.Context(), l.host(), a, l.opt)
			return err
		}))
		return diffs
	}
	if got := differences(); len(got) > 0 {
		t.Errorf("differences where all is there: %v", got)
	}
	before := l.ruleset(t)
	for _, damage := range []string{"flush ruleset", "flush set inet nsinit networks6", "delete table inet nsinit"} {
		l.Run(t, append([]string{"nft"}, strings.Fields(damage)...)...).OK(t)
		if len(differences()) == 0 {
			t.Errorf("no difference after %s", damage)
		}
		check(t, l.masquerade(a))
		if got := zeroCounters(l.ruleset(t)); got != zeroCounters(before) {
			t.Errorf("after %s:\n%s\nwas:\n%s", damage, got, before)
		}
		check(t, c.Ping(l.out.V4, 56, soon))
		check(t, c.Ping(l.out.V6, 56, soon))
	}
}

func TestSubnetsOfEightFirstUsers(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		_, a := l.container(t, "nsi0", 77, 2+i)
		wg.Go(func() { errs[i] = l.masquerade(onOwnBridge(a)) })
	}
	wg.Wait()
	for _, err := range errs {
		check(t, err)
	}
	if n := strings.Count(l.ruleset(t), `10.77.0.0/24 . "nsi0"`); n != 1 {
		t.Errorf("%d elements, want 1:\n%s", n, l.ruleset(t))
	}
}

// The network's file was changed to another prefix over the same addresses: the newer one counts, also when the table
// is made again of records that have both.
func TestSubnetsThatOverlap(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.records, nil }
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(onOwnBridge(a)))
	for _, want := range []string{"10.77.0.0/16", "10.77.0.0/25", "10.77.0.0/24"} {
		now := onOwnBridge(a)
		now.Subnets[0] = netip.MustParsePrefix(want)
		for _, damage := range []string{"", "flush ruleset"} {
			if damage != "" {
				l.Run(t, append([]string{"nft"}, strings.Fields(damage)...)...).OK(t)
			}
			check(t, l.masquerade(now))
			if got := l.ruleset(t); strings.Count(got, "10.77.0.0/") != 1 || !strings.Contains(got, want+` . "nsi0"`) {
				t.Errorf("want %s alone (after %q):\n%s", want, damage, got)
			}
			check(t, c.Ping(l.out.V4, 56, soon))
		}
		check(t, l.Do(func() error { return Reload(t.Context(), l.host(), l.opt) }))
	}
	l.wantUndone(t, "10.77.0.0")
}
