package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func (l *lab) spoofCheck(a netsetup.Attachment) error {
	return l.Do(func() error { return SpoofCheck(context.Background(), a, "owner", l.opt, l.record) })
}

// wantSpoof has a container speak with its own address and with another one.
func (l *lab) wantSpoof(t *testing.T, c *netsetuptest.Node, a netsetup.Attachment, dropped bool) {
	t.Helper()
	for _, mac := range []string{"02:00:00:00:00:99", a.MAC} {
		l.ip(t, "-n "+c.Name+" link set eth0 address "+mac)
		for _, gw := range a.Gateways {
			l.Run(t, "ip", "neigh", "flush", "dev", "nsi0").OK(t)
			c.Run(t, "ip", "neigh", "flush", "dev", "eth0").OK(t)
			err := c.Ping(gw, 56, 500*time.Millisecond)
			if want := dropped && mac != a.MAC; (err != nil) != want {
				t.Errorf("ping %s from %s: dropped is to be %v: %v", gw, mac, want, err)
			}
		}
	}
}

func TestSpoofCheck(t *testing.T) {
	l := newLab(t)
	c1, a1 := l.container(t, "nsi0", 77, 2)
	c2, a2 := l.container(t, "nsi0", 77, 3)
	for _, a := range []*netsetup.Attachment{&a1, &a2} {
		a.Masquerade = false
		a.Port = &netsetup.BridgePort{SpoofCheck: true}
	}
	a1.MAC, a2.MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	l.ip(t, "-n "+c1.Name+" link set eth0 address "+a1.MAC)
	l.wantSpoof(t, c1, a1, false)
	check(t, l.spoofCheck(a1))
	check(t, l.spoofCheck(a1)) // twice
	l.wantSpoof(t, c1, a1, true)
	l.wantSpoof(t, c2, a2, false)

	differences := func() string {
		var found []netsetup.Difference
		check(t, l.Do(func() (err error) {
			found, err = Check(context.Background(), l.host(), a1, l.opt)
			return err
		}))
		return fmt.Sprint(found)
	}
	if got := differences(); got != "[]" {
		t.Errorf("differences: %s", got)
	}
	l.Run(t, "nft", "flush", "ruleset").OK(t)
	if got := differences(); !strings.Contains(got, "table bridge nsinit: want the table") {
		t.Errorf("differences after a flush: %s", got)
	}
	// Whoever comes next brings the others' back as well.
	l.opt.Recorded = func() ([]netsetup.Object, error) {
		return append(l.records, netsetup.Object{Kind: KindSpoof, Name: "of another version"}), nil
	}
	check(t, l.spoofCheck(a2))
	l.wantSpoof(t, c1, a1, true)
	l.wantSpoof(t, c2, a2, true)
	l.Run(t, "nft", "delete", "element", "bridge", "nsinit", "checked", "{ "+a1.HostIf+" }").OK(t)
	if got := differences(); !strings.Contains(got, a1.HostIf+"@"+a1.MAC) {
		t.Errorf("differences without the element: %s", got)
	}
	check(t, l.undoAll())
	check(t, l.undoAll())
	l.wantSpoof(t, c1, a1, false)
	if rules := l.ruleset(t); strings.Contains(rules, a1.HostIf) || strings.Contains(rules, a2.HostIf) {
		t.Errorf("left:\n%s", rules)
	}
	check(t, l.undoHost())
	check(t, l.undoAll())
	if rules := l.ruleset(t); rules != "" {
		t.Errorf("left:\n%s", rules)
	}
}

// TestForward has a network that is routed and not masqueraded: its containers are
// known by their own addresses outside, and others have the way to them.
func TestForward(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	a.Masquerade, a.Routed = false, true
	forward := func() error {
		return l.Do(func() error { return Forward(context.Background(), l.host(), a, "owner", l.opt, l.record) })
	}
	l.opt.NoForwarding = true
	check(t, forward())
	if len(l.records) > 0 || l.ruleset(t) != "" {
		t.Errorf("with NoForwarding: records %v, table\n%s", l.records, l.ruleset(t))
	}
	l.opt.NoForwarding = false
	before := l.sysctls(t)
	check(t, forward())
	echo := l.out.Echo(t)
	for i, via := range []netip.Addr{l.out.HostV4, l.out.HostV6} {
		l.out.Run(t, "ip", "route", "add", a.Addresses[i].Masked().String(), "via", via.String()).OK(t)
		check(t, l.out.Ping(a.Addresses[i].Addr(), 56, soon))
	}
	exchanges(t, c, echo, l.out.V4, l.out.V6)
	if got, want := echo.Seen(), []netip.Addr{a.Addresses[0].Addr(), a.Addresses[1].Addr()}; !slices.Equal(got, want) {
		t.Errorf("the outside saw %v, want %v", got, want)
	}
	check(t, l.undoAll())
	check(t, l.undoHost())
	if after := l.sysctls(t); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}
