package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/nsinit/nsinit/netsetup"
)

// Whether a packet is forwarded is decided by the device that it comes in by: for
// IPv4 by net.ipv4.conf.DEVICE.forwarding, for IPv6 by conf.DEVICE.force_forwarding
// (since 6.17) or conf.all.forwarding, and by conf.DEVICE.forwarding not at all. So
// two devices are concerned: the container's, and, for the answers, the uplink.
//
// IPv6 before 6.17 has only the switch for all devices. It does more than that: each
// device is a router's from then on, so that router advertisements are ignored on
// it, and what they brought is thrown away, unless accept_ra is 2. Once the switch is
// set, though, each device's own forwarding can be put back to 0, and packets are
// forwarded as before: that leaves the host the host that it was.

// openForwarding sees to it that the host forwards for l. It tells whether that
// took a change.
func openForwarding(ctx context.Context, h *netsetup.Host, l hostLink, opt Options) (changed bool, err error) {
	rt, err := openRoutes()
	if err != nil {
		return false, err
	}
	defer rt.Close()
	f := forwarding{hostLink: l, routes: rt, opt: opt}
	if enough, err := f.enough(); err != nil || enough {
		return false, err
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return false, err
	}
	defer lock.release()
	return f.open(ctx, h)
}

// A forwarding is the work on it for one container.
type forwarding struct {
	hostLink
	routes routes
	opt    Options

	looks  bool // nothing is to be done, and the device may not be there yet: it will be as a new one is
	ledger *ledger
	steps  []change // in the order in which they are to be made
	passes []change // further ones, on a device that dies with the container
}

// enough tells whether nothing is to be done: what most starts ask. It reads at most
// three sysctls and one route a family.
func (f *forwarding) enough() (bool, error) {
	if f.v4 {
		if ok, err := f.enough4(); !ok || err != nil {
			return false, err
		}
	}
	if f.v6 {
		return f.enough6()
	}
	return true, nil
}

func (f *forwarding) enough4() (bool, error) {
	switch {
	case !forwarding4(f.device).is("1"):
		return false, nil
	case forwardsAll(4):
		return !f.overtaken(4), nil
	}
	return f.uplinksAre(4, forwarding4)
}

func (f *forwarding) enough6() (bool, error) {
	switch {
	case forwardsAll(6):
		return !f.overtaken(6), nil
	case f.opt.noForce || !force6(f.device).is("1"): // or it has no such sysctl
		return false, nil
	}
	return f.uplinksAre(6, force6)
}

func (f *forwarding) uplinksAre(family int, on func(string) sysctl) (bool, error) {
	links, err := f.routes.uplinks(family)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(links, func(l netlink.Link) bool { return !on(l.Attrs().Name).is("1") }), nil
}

// forwardsAll tells whether the family's switch for the whole host is on.
func forwardsAll(family int) bool {
	if family == 4 {
		return sysctl("ipv4/ip_forward").is("1")
	}
	return forwarding6("all").is("1")
}

// overtaken reads the ledger without its lock: only to see whether to take it.
func (f *forwarding) overtaken(family int) bool {
	if _, err := os.Lstat(ledgerPath(f.opt.StateDir)); err != nil {
		return false
	}
	l, err := readLedger(f.opt.StateDir)
	return err == nil && l.overtaken(family)
}

func (f *forwarding) canForce() bool {
	device := f.device
	if f.looks {
		device = "default"
	}
	return !f.opt.noForce && !force6(device).missing()
}

// open does what is missing. The order is: the ledger, what keeps others out, and
// only then the sysctls.
func (f *forwarding) open(ctx context.Context, h *netsetup.Host) (bool, error) {
	var err error
	if f.ledger, err = readLedger(f.opt.StateDir); err != nil {
		return false, err
	}
	took := f.handOver()
	before := len(f.ledger.Opened)
	if err := f.plan(); err != nil {
		return false, err
	}
	if len(f.steps) == 0 && len(f.passes) == 0 && !took {
		return false, nil
	}
	if f.opt.NoForwarding && len(f.steps)+len(f.passes) > 0 {
		s := slices.Concat(f.steps, f.passes)[0]
		return false, fmt.Errorf("%s is %s, and --no-forwarding forbids to change it: set it to %s, or leave the flag out", s.Sysctl, s.Was, s.Now)
	}
	if len(f.steps) > 0 || took {
		if err := f.ledger.save(); err != nil {
			return false, err
		}
	}
	if took || len(f.ledger.Opened) != before || len(f.steps) > 0 {
		if err := makeTable(ctx, newTable(), f.ledger, elements{}); err != nil {
			return false, err
		}
	}
	if err := f.apply(); err != nil {
		return false, err
	}
	if len(f.steps) > 0 {
		h.Warn(f.line())
	}
	return len(f.steps) > 0, nil
}

// handOver forgets families that the host forwards by its own will by now.
func (f *forwarding) handOver() bool {
	took := false
	for _, family := range []int{4, 6} {
		if f.ledger.overtaken(family) {
			f.ledger.forget(family)
			took = true
		}
	}
	return took
}

// plan fills steps and the ledger.
func (f *forwarding) plan() error {
	if f.v4 {
		if err := f.planDevices(4, forwarding4); err != nil {
			return err
		}
	}
	switch {
	case !f.v6 || forwardsAll(6):
		return nil
	case f.canForce():
		return f.planDevices(6, force6)
	default:
		return f.planAll6()
	}
}

// planDevices switches single devices on: the uplinks, then the container's, so that
// who sees that one on needs no more.
func (f *forwarding) planDevices(family int, on func(string) sysctl) error {
	if !forwardsAll(family) {
		links, err := f.concerned(family)
		if err != nil {
			return err
		}
		for _, l := range links {
			name := l.Attrs().Name
			if err := f.want(change{Sysctl: on(name), Now: "1", Family: family}, &f.steps); err != nil {
				return err
			}
		}
		f.ledger.open(f.outside(links, family, on)...)
	}
	own := change{Sysctl: on(f.device), Now: "1", Family: family}
	if f.lasting {
		return f.want(own, &f.steps)
	}
	return f.want(own, &f.passes)
}

// concerned are the devices by which answers can come in.
func (f *forwarding) concerned(family int) ([]netlink.Link, error) {
	links, err := f.routes.uplinks(family)
	if err != nil {
		return nil, err
	}
	others, err := f.routes.others(family)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(append(links, others...), func(l netlink.Link) bool { return l.Attrs().Name == f.device }), nil
}

// outside are those of links that forward because of us: now, or since an earlier
// start. A device that forwarded before nsinit came is not one of them.
func (f *forwarding) outside(links []netlink.Link, family int, on func(string) sysctl) []opened {
	var all []opened
	for _, l := range links {
		ours := slices.ContainsFunc(f.ledger.Changes, func(c change) bool { return c.Sysctl == on(l.Attrs().Name) })
		if ours {
			all = append(all, opened{Device: l.Attrs().Name, Family: family, Bridge: l.Type() == "bridge"})
		}
	}
	return all
}

// want puts c into list, and into the ledger if the device lasts, when the sysctl
// has another value.
func (f *forwarding) want(c change, list *[]change) error {
	var err error
	if c.Was, err = c.Sysctl.read(); f.looks && errors.Is(err, fs.ErrNotExist) {
		c.Was, err = "0", nil
	}
	if err != nil || c.Was == c.Now {
		return err
	}
	if slices.ContainsFunc(*list, func(old change) bool { return old.Sysctl == c.Sysctl }) {
		return nil
	}
	*list = append(*list, c)
	if list == &f.steps {
		f.ledger.append(c)
	}
	return nil
}

func (f *forwarding) apply() error {
	for _, c := range slices.Concat(f.steps, f.passes) {
		write := c.Sysctl.write
		if c.Sysctl == forwarding6("all") {
			write = func(string) error { return switchAll6() }
		}
		if err := write(c.Now); err != nil {
			return err
		}
	}
	return nil
}

// line tells the user what was changed, and how to have it otherwise.
func (f *forwarding) line() string {
	var what []string
	for _, c := range f.steps {
		what = append(what, fmt.Sprintf("%s=%s", c.Sysctl, c.Now))
	}
	return "forwarding was off: set " + strings.Join(what, ", ") + " for network " + f.network +
		", and drops what others would have forwarded; `nsinit gc --all` undoes it, --no-forwarding refuses it"
}
