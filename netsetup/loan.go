package netsetup

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A loan is a device of the host that a container has for its life. The kernel
// would not give it back: what is virtual dies with its namespace, what is physical
// falls into the initial namespace under the name that it has, and either way
// addresses, routes and settings are gone. So all of it is written down first, the
// namespace is held by a bind mount, and whoever ends the container brings the
// device home.
//
// The order is what makes a kill harmless at any instant:
//
//	lend      1 record the loan         2 hold the namespace    3 move, rename, mark: one request
//	undo      4 mark it as coming home  5 move                  6 restore   7 unmark   8 release the hold
//
// Killed before 3, the device is at home without a mark: nothing is to be restored
// that somebody may have changed since. From 3 on the hold keeps the device, with
// all processes dead. Killed before 5, it is found inside by its index, which no one
// inside can change; between 5 and 7, at home by its mark, and 6 works on what is
// half restored. Behind 7 only the hold is left.
//
// The mark is an alias that says that something is missing, for people as well. Inside,
// host-device has the host's name as the alias, as the reference plugin does, and
// net-device the one that it had.
type loan struct {
	Host   uint64      `json:"host"`  // inode of the namespace that it belongs to
	NetNS  uint64      `json:"netns"` // inode of the one that it is in
	Index  int         `json:"index"` // its index there
	Saved  int64       `json:"saved"` // when, in seconds since the boot
	Device deviceState `json:"device"`
}

// KindDevice is the kind of the object that a loan is recorded as. Its Name is the
// device's on the host.
const KindDevice = "device"

// newIfIndex is IFLA_NEW_IFINDEX, 5.13.
const newIfIndex = 0x31

func homeMark(name string) string { return "nsinit: " + name + " is not all back: nsinit gc" }

// lend moves dev into target under the name ifName, or one made of it if it has a
// "%d", and returns what it was. It is down then. The caller holds lockLoans, from
// before it looked for dev on.
//
// Its alias becomes the host's name if marked.
func (h *Host) lend(target *NetNS, dev link, p *Plan, marked bool, record Recorder) (ifName string, was deviceState, err error) {
	if dev.alias == homeMark(dev.name) {
		return "", was, fmt.Errorf("%s: is not all back from a container that was killed; run nsinit gc", dev.name)
	}
	inside, err := target.rtnl()
	if err != nil {
		return "", was, err
	}
	defer inside.close()
	if ifName, err = inside.freeName(p.IfName); err != nil {
		return "", was, err
	}
	l, err := h.newLoan(target, inside, dev)
	if err != nil {
		return "", was, err
	}
	if !p.Stays {
		o := Object{Kind: KindDevice, Network: p.networkName(), Name: dev.name, Owner: p.Owner, IfName: ifName}
		if err := l.begin(target, o, record); err != nil {
			return "", was, fmt.Errorf("%s: %w", dev.name, err)
		}
	}
	alias := dev.alias
	if marked {
		alias = dev.name
	}
	return ifName, l.Device, h.moveIn(target, dev, ifName, alias, l.Index)
}

// begin records the loan and holds the namespace.
func (l *loan) begin(target *NetNS, o Object, record Recorder) error {
	content, err := json.Marshal(l)
	if err != nil {
		return err
	}
	o.Was = string(content)
	if err := record(o); err != nil {
		return err
	}
	return l.hold(target)
}

// moveIn moves, renames and marks in one request. In the kernel's order: what fails
// behind the move leaves the device inside, and is undone as a whole.
func (h *Host) moveIn(target *NetNS, dev link, ifName, alias string, index int) error {
	err := h.c.setLink(
		ifinfo(dev.index, 0, 0), nameAttr(ifName), aliasAttr(alias),
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target.fd()))),
		nl.NewRtAttr(newIfIndex, nl.Uint32Attr(uint32(index))),
	)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: move into the container as %s: %w; devices such as bridges and tunnels' fallbacks can't change their namespace", dev.name, ifName, err)
	}
	if err != nil {
		return fmt.Errorf("%s: move into the container as %s: %w", dev.name, ifName, err)
	}
	return nil
}

func aliasAttr(alias string) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(alias))
}

func (h *Host) newLoan(target *NetNS, inside *rtnl, dev link) (l *loan, err error) {
	home, err := h.c.netns()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	l = &loan{Saved: sinceBoot()}
	if l.Host, err = home.id(); err != nil {
		return nil, err
	}
	if l.NetNS, err = target.id(); err != nil {
		return nil, err
	}
	if l.Host == l.NetNS {
		return nil, fmt.Errorf("%s: the container has the host's network namespace", dev.name)
	}
	if l.Index, err = inside.freeIndex(dev.index); err != nil {
		return nil, err
	}
	l.Device, err = h.c.deviceState(dev.index)
	return l, err
}

// sinceBoot is in seconds, suspended time included.
func sinceBoot() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // always there
	return t.Sec
}

// rtnl opens a socket in n.
func (n *NetNS) rtnl() (c *rtnl, err error) {
	err = n.Do(func() (err error) {
		c, err = openRTNL()
		return err
	})
	return c, err
}

// netns opens the namespace that the socket speaks to.
func (c *rtnl) netns() (*NetNS, error) {
	const name = "host's network namespace"
	fd, err := unix.IoctlRetInt(c.fd, unix.SIOCGSKNS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return newNetNS(fd, name)
}

// freeName returns name, or the first free one of the template that it is. The
// kernel would find out about a name that is taken when the device has moved.
func (c *rtnl) freeName(name string) (string, error) {
	before, after, template := strings.Cut(name, "%d")
	for n := 0; ; n++ {
		try := name
		if template {
			try = before + strconv.Itoa(n) + after
			if err := CheckIfName(try); err != nil {
				return "", faultf("interface name", try, "%w", err)
			}
		}
		_, err := c.linkByName(try)
		switch {
		case errors.Is(err, unix.ENODEV):
			return try, nil
		case err != nil:
			return "", err
		case !template:
			return "", fmt.Errorf("%s: the container's network namespace has an interface of this name already: %w", name, unix.EEXIST)
		}
	}
}

// freeIndex returns want, or another number that no interface has.
func (c *rtnl) freeIndex(want int) (int, error) {
	for {
		_, err := c.link(want)
		if errors.Is(err, unix.ENODEV) {
			return want, nil
		}
		if err != nil {
			return 0, fmt.Errorf("device %d: look up: %w", want, err)
		}
		var b [2]byte
		random(b[:])
		want = 1000 + int(b[0]) + int(b[1])<<8
	}
}

// undoDevice brings a device home.
func (h *Host) undoDevice(o Object) error {
	var l loan
	if err := json.Unmarshal([]byte(o.Was), &l); err != nil || l.Device.Name == "" {
		return fmt.Errorf("device %.64q: its record is not to be understood: %w", o.Name, err)
	}
	if err := CheckIfName(l.Device.Name); err != nil {
		return fmt.Errorf("device %.64q: %w", l.Device.Name, err)
	}
	unlock, err := lockLoans()
	if err != nil {
		return err
	}
	defer unlock()
	home, err := h.c.netns()
	if err != nil {
		return err
	}
	defer home.Close()
	if ino, err := home.id(); err != nil || ino != l.Host {
		return errors.Join(err, fmt.Errorf("%s: belongs to another network namespace; run nsinit gc there", o.Name))
	}
	ns, err := l.held()
	if err != nil {
		return err
	}
	if ns == nil {
		err = h.comeHomeAlone(&l)
	} else {
		err = errors.Join(h.comeHome(ns, home, &l), ns.Close())
	}
	if err != nil {
		return err
	}
	return l.release()
}

// comeHome brings the device from ns, or finishes what was begun.
func (h *Host) comeHome(ns, home *NetNS, l *loan) error {
	inside, err := ns.rtnl()
	if err != nil {
		return err
	}
	defer inside.close()
	name := l.Device.Name
	dev, err := inside.link(l.Index)
	switch {
	case err == nil && dev.kind == l.Device.Kind:
		if err := inside.moveHome(home, dev, l); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case err != nil && !errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%s: look up in the container: %w", name, err)
	}
	dev, err = h.c.linkByName(name)
	if errors.Is(err, unix.ENODEV) {
		h.Warn(name + ": is neither on the host nor in the container: somebody removed it, or moved it elsewhere")
		return nil
	}
	if err != nil {
		return err
	}
	if dev.alias != homeMark(name) {
		return nil // it never left, or is whole
	}
	return h.restore(dev.index, l)
}

// moveHome takes the device down, gives it its name back while it is still inside,
// so that nobody on the host sees another one, marks it, and moves it.
func (c *rtnl) moveHome(home *NetNS, dev link, l *loan) error {
	name := l.Device.Name
	if dev.up() { // before 6.2 a device that is up can't be renamed
		if err := c.setLink(ifinfo(dev.index, 0, unix.IFF_UP)); err != nil {
			return fmt.Errorf("set down: %w", err)
		}
	}
	mark := aliasAttr(homeMark(name))
	err := c.setLink(ifinfo(dev.index, 0, 0), nameAttr(name), mark)
	if errors.Is(err, unix.EEXIST) { // another one inside has it: renamed by the move
		err = c.setLink(ifinfo(dev.index, 0, 0), mark)
	}
	if err != nil {
		return fmt.Errorf("rename in the container: %w", err)
	}
	move := []nl.NetlinkRequestData{
		ifinfo(dev.index, 0, 0), nameAttr(name), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(home.fd()))),
	}
	err = c.setLink(append(move, nl.NewRtAttr(newIfIndex, nl.Uint32Attr(uint32(l.Device.Index))))...)
	if errors.Is(err, unix.EBUSY) { // another device has its number by now
		err = c.setLink(move...)
	}
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("can't come home: the host has another device of its name or one of its other names by now; rename that one, then run nsinit gc: %w", err)
	}
	if err != nil {
		return fmt.Errorf("move to the host: %w", err)
	}
	return nil
}

// comeHomeAlone looks for a device whose namespace isn't held: its start was killed
// before it was, or somebody unmounted it, and the kernel has put the device into
// the initial namespace under the name that it had.
func (h *Host) comeHomeAlone(l *loan) error {
	dev, err := h.c.linkByName(l.Device.Name)
	switch {
	case err == nil && dev.alias == homeMark(dev.name):
		return h.restore(dev.index, l)
	case err == nil || !errors.Is(err, unix.ENODEV):
		return err
	}
	dev, err = h.findLink(l.fallen)
	if errors.Is(err, errNoLink) {
		h.Warn(l.Device.Name + ": is not on the host, and its namespace is not held any more")
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.c.setLink(ifinfo(dev.index, 0, unix.IFF_UP)); err != nil {
		return fmt.Errorf("%s: set down: %w", dev.name, err)
	}
	err = h.c.setLink(ifinfo(dev.index, 0, 0), nameAttr(l.Device.Name), aliasAttr(homeMark(l.Device.Name)))
	if err != nil {
		return fmt.Errorf("%s: rename to %s: %w", dev.name, l.Device.Name, err)
	}
	return h.restore(dev.index, l)
}

// fallen tells whether dev is the device under another name.
func (l *loan) fallen(dev link) bool {
	same := dev.kind == l.Device.Kind && dev.mac.String() == net.HardwareAddr(l.Device.MAC).String()
	return same && (dev.alias == l.Device.Name || dev.alias == l.Device.Alias && len(dev.mac) > 0)
}

// age is how long the device was away.
func (l *loan) age() time.Duration { return time.Duration(max(0, sinceBoot()-l.Saved)) * time.Second }
