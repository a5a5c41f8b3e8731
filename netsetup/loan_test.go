package netsetup

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A loanTest is one device on its way.
type loanTest struct {
	h      *Host
	home   *NetNS
	target *NetNS
	loan   *loan
	lent   *lent
}

func (t *loanTest) lend() error {
	dev, err := t.h.c.linkByName("eth9")
	if err != nil {
		return err
	}
	p := Plan{Request: Request{IfName: "eth0", Owner: "web"}}
	_, _, err = t.h.lend(t.target, dev, &p, true, t.lent.record)
	return err
}

func (t *loanTest) inside(f func(c *rtnl, dev link) error) error {
	c, err := t.target.rtnl()
	if err != nil {
		return err
	}
	defer c.close()
	dev, err := c.linkByName("eth0")
	if err != nil {
		return err
	}
	return f(c, dev)
}

func (t *loanTest) moveHome() error {
	return t.inside(func(c *rtnl, dev link) error { return c.moveHome(t.home, dev, t.loan) })
}

func (t *loanTest) restore(f func(index int) error) error {
	if err := errors.Join(t.lend(), t.moveHome()); err != nil {
		return err
	}
	dev, err := t.h.c.linkByName("eth9")
	if err != nil {
		return err
	}
	return f(dev.index)
}

// loanStages are the points at which a kill leaves something else, each by what was done
// until then.
func loanStages() []struct {
	name string
	do   func(t *loanTest) error
} {
	return []struct {
		name string
		do   func(t *loanTest) error
	}{
		{"recorded", func(t *loanTest) error { return nil }},
		{"empty file for the hold", func(t *loanTest) error {
			f, err := os.OpenFile(t.loan.path(), os.O_CREATE, 0)
			if err != nil {
				return err
			}
			return f.Close()
		}},
		{"held", func(t *loanTest) error { return t.loan.hold(t.target) }},
		{"moved", (*loanTest).lend},
		{"down inside", func(t *loanTest) error {
			return errors.Join(t.lend(), t.inside(func(c *rtnl, dev link) error { return c.setLink(ifinfo(dev.index, 0, unix.IFF_UP)) }))
		}},
		{"marked inside", func(t *loanTest) error {
			return errors.Join(t.lend(), t.inside(func(c *rtnl, dev link) error {
				return c.setLink(ifinfo(dev.index, 0, 0), nameAttr("eth9"), aliasAttr(homeMark("eth9")))
			}))
		}},
		{"moved home", func(t *loanTest) error { return errors.Join(t.lend(), t.moveHome()) }},
		{"half restored", func(t *loanTest) error {
			return t.restore(func(index int) error {
				if err := t.h.restoreLink(index, &t.loan.Device, func(string, error) {}); err != nil {
					return err
				}
				off := loanSetting{"ipv6/conf", acceptDAD, "0"}
				again := revival{index: index}.address(t.loan.Device.Addresses[0])
				return errors.Join(off.write("eth9"), t.h.c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE, again...),
					t.h.c.setLink(ifinfo(index, unix.IFF_UP, unix.IFF_UP)))
			})
		}},
		{"all but the mark", func(t *loanTest) error {
			return t.restore(func(index int) error {
				err := t.h.restore(index, t.loan)
				return errors.Join(err, t.h.c.setLink(ifinfo(index, 0, 0), aliasAttr(homeMark("eth9"))))
			})
		}},
		{"all but the hold", func(t *loanTest) error {
			return t.restore(func(index int) error { return t.h.restore(index, t.loan) })
		}},
	}
}

// TestLoanStopsAnywhere stops at each of them; what is recorded is enough to make all as
// it was, and nothing else.
func TestLoanStopsAnywhere(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	for _, stage := range loanStages() {
		t.Run(stage.name, func(t *testing.T) {
			l := new(lent)
			err := onHost(host, func(h *Host) error {
				unlock, err := lockLoans()
				if err != nil {
					return err
				}
				defer unlock()
				return stopAt(h, c, l, stage.do)
			})
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
			wantHome(t, host, before)
		})
	}
}

func stopAt(h *Host, c testContainer, l *lent, do func(t *loanTest) error) (err error) {
	s := &loanTest{h: h, target: c.ns, lent: l}
	if s.home, err = h.c.netns(); err != nil {
		return err
	}
	defer s.home.Close()
	dev, err := h.c.linkByName("eth9")
	if err != nil {
		return err
	}
	inside, err := c.ns.rtnl()
	if err != nil {
		return err
	}
	defer inside.close()
	if s.loan, err = h.newLoan(c.ns, inside, dev); err != nil {
		return err
	}
	// The record is the same as lend's own, which a further one is.
	err = s.loan.begin(c.ns, Object{Kind: KindDevice, Name: "eth9", Owner: "web"}, l.record)
	if err != nil {
		return err
	}
	return errors.Join(s.loan.release(), do(s))
}

// A device that never left is not touched: who has changed it meanwhile meant it.
func TestLoanNeverMoved(t *testing.T) {
	t.Parallel()
	host, c, _ := newOffice(t, office)
	l := new(lent)
	err := onHost(host, func(h *Host) error {
		unlock, err := lockLoans()
		if err != nil {
			return err
		}
		defer unlock()
		return stopAt(h, c, l, func(t *loanTest) error { return t.loan.hold(t.target) })
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Run(t, "sh", "-e", "-c", "ip addr del 10.9.0.3/24 dev eth9; ip link set eth9 mtu 1350; ip route del default").OK(t)
	changed := officeNow(t, host)
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	wantEqual(t, "changes", netsetuptest.Diff(changed.Without("file "+loanDir+"/", "mount "+loanDir+"/"), officeNow(t, host)), "")
}

// lendEth9 is a container with the device.
func lendEth9(t *testing.T, host *netsetuptest.Host, c testContainer) *lent {
	t.Helper()
	l := new(lent)
	a, err := c.attach(host, planOf(t, hostDeviceNet), nil, l.record)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	return l
}

// Somebody has taken its name: it waits in its namespace, and comes home whole later.
func TestLoanNameTaken(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	for _, taken := range []string{"eth9", "office9"} {
		l := lendEth9(t, host, c)
		host.Run(t, "ip", "link", "add", taken, "type", "bridge").OK(t)
		var warnings []string
		for range 2 {
			wantError(t, l.tryUndo(host, &warnings), "eth9: can't come home: the host has another device of its name", "then run nsinit gc")
		}
		host.Run(t, "ip", "link", "del", taken).OK(t)
		wantEqual(t, "warnings", fmt.Sprint(warnings, l.undo(t, host)), "[] []")
		wantHome(t, host, before)
	}
}

// Whoever has the right to may remove a virtual device inside, or a physical one may be
// pulled: that is told once, and no record is kept for ever.
func TestLoanRemovedInside(t *testing.T) {
	t.Parallel()
	host, c, _ := newOffice(t, office)
	l := lendEth9(t, host, c)
	c.Run(t, "ip", "link", "del", "eth0").OK(t)
	said := l.undo(t, host)
	if len(said) == 0 || !strings.Contains(said[0], "eth9: is neither on the host nor in the container") {
		t.Errorf("said %q", said)
	}
	wantEqual(t, "holds", strings.Join(host.Snapshot(t).Grep(loanDir+"/"), "\n"), "")
}

// Another network namespace is not the device's home.
func TestLoanOtherHost(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	other := newContainer(t, host, "other")
	l := lendEth9(t, host, c)
	err := other.DoInside(func() error {
		h, err := OpenHost(nil)
		if err != nil {
			return err
		}
		defer h.Close()
		return Undo(t.Context(), h, l.objects[0])
	})
	wantError(t, err, "eth9: belongs to another network namespace; run nsinit gc there")
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	host.Run(t, "ip", "netns", "del", "other").OK(t)
	wantHome(t, host, before)
	host.Run(t, "ip", "netns", "add", "other").OK(t) // for the clean-up
}

// The hold is gone and the kernel has put the device back by itself, as it does with
// physical ones: under the name that it had inside.
func TestLoanFallen(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	l := lendEth9(t, host, c)
	host.Run(t, "sh", "-e", "-c", "umount "+loanDir+"/*; rm "+loanDir+"/*").OK(t)
	err := c.inside(func(in *Inside) error {
		dev, err := in.c.linkByName("eth0")
		if err != nil {
			return err
		}
		home, err := os.Open("/proc/1/ns/net")
		if err != nil {
			return err
		}
		defer home.Close()
		return in.c.setLink(ifinfo(dev.index, 0, 0), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(home.Fd()))),
			nl.NewRtAttr(newIfIndex, nl.Uint32Attr(uint32(host.Link(t, "far9").IfIndex+1))))
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	wantHome(t, host, before)
}

// A port of a bridge that was down is that again.
func TestLoanOfPort(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, `
		ip link add br9 address 02:00:00:00:00:99 type bridge
		ip link set br9 up
		ip link add eth9 type veth peer name far9
		ip link set eth9 master br9
		ip addr add 10.9.0.2/24 dev eth9`)
	l := lendEth9(t, host, c)
	wantEqual(t, "warnings", fmt.Sprint(l.undo(t, host)), "[]")
	wantHome(t, host, before)
	l = lendEth9(t, host, c)
	host.Run(t, "ip", "link", "del", "br9").OK(t)
	said := l.undo(t, host)
	wantEqual(t, "warnings", fmt.Sprint(said), "[eth9: came home without its master br9: br9: look up: no such device]")
}

// One that is not all back is not lent again.
func TestLoanWhileOnItsWay(t *testing.T) {
	t.Parallel()
	host, c, before := newOffice(t, office)
	l := new(lent)
	err := onHost(host, func(h *Host) error {
		return stopAt(h, c, l, func(t *loanTest) error { return errors.Join(t.lend(), t.moveHome()) })
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.attach(host, planOf(t, hostDeviceNet), nil, noRecord)
	wantError(t, err, "eth9: is not all back from a container that was killed; run nsinit gc")
	l.undo(t, host)
	wantHome(t, host, before)
}

// A record that was tampered with, or torn, moves nothing.
func TestLoanBadRecord(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	for _, was := range []string{"", "{", "{}", `{"device": {"name": "../x"}}`, `{"device": {"name": "lo"}}`, `{"host": 1, "device": {"name": "eth9"}}`} {
		err := onHost(host, func(h *Host) error { return Undo(t.Context(), h, Object{Kind: KindDevice, Name: "eth9", Was: was}) })
		if err == nil {
			t.Errorf("%s: no error", was)
		}
	}
}

func TestAged(t *testing.T) {
	t.Parallel()
	info := func(preferred, valid uint32) []byte {
		b := make([]byte, unix.SizeofIfaCacheinfo)
		nl.NativeEndian().PutUint32(b, preferred)
		nl.NativeEndian().PutUint32(b[4:], valid)
		return b
	}
	const forever = 1<<32 - 1
	for _, test := range []struct {
		preferred, valid, wantPreferred, wantValid uint32
	}{
		{forever, forever, forever, forever}, {100, 200, 90, 190}, {5, 20, 0, 10}, {5, 10, 0, 0}, {0, 5, 0, 0}, {0, forever, 0, forever},
	} {
		got, alive := aged(info(test.preferred, test.valid), 10*time.Second)
		if string(got) != string(info(test.wantPreferred, test.wantValid)) || alive != (test.wantValid > 0) {
			t.Errorf("%d, %d: %v, %v", test.preferred, test.valid, got, alive)
		}
	}
}

// Truncated messages make no request, and no panic.
func FuzzReplay(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 12, 0, 9, 0, 8, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		routesAgain(raw, 1, 2, time.Minute)
		revival{index: 3, then: "eth9", now: "eth0"}.address(raw)
		neighbourAgain(raw, 3)
		if len(raw) > unix.SizeofIfAddrmsg {
			keptAddresses([][]byte{raw})
			addrWords(raw, "eth9", "eth0")
		}
	})
}
