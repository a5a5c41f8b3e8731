package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Inside is the container's side: one netlink socket in the namespace of the
// calling thread.
type Inside struct {
	c *rtnl

	unsettled []deviceAddr
}

// A deviceAddr is an address and the index of the interface that has it.
type deviceAddr struct {
	netip.Addr
	index int
}

// OpenInside opens it. The caller's thread is in the container's namespace and stays
// locked until the last Configure: settings are written through /proc/sys, which
// goes by the thread.
func OpenInside() (*Inside, error) {
	c, err := openRTNL()
	if err != nil {
		return nil, err
	}
	return &Inside{c: c}, nil
}

// UseProcfs has settings written through a mount of procfs, which stays the caller's, and not
// through /proc. An init does so: the kernel keeps what it looked up below a mount's sys/net
// for each network namespace in one place, and among those of a thousand containers it took
// each of them, and the host, half a millisecond to find its own.
func (in *Inside) UseProcfs(procfs *os.File) { in.c.procfs = procfs }

// Inside runs f on a thread in n, with a socket of its own there, as Do.
func (n *NetNS) Inside(f func(in *Inside) error) error {
	return n.Do(func() error {
		in, err := OpenInside()
		if err != nil {
			return err
		}
		defer in.Close()
		if err := f(in); err != nil {
			return err
		}
		return in.Settle()
	})
}

// Close closes the socket.
func (in *Inside) Close() error {
	in.c.close()
	return nil
}

// finish is the container half of every interface that was put into the
// namespace: name, settings, addresses, up, routes, in the one order that works.
// A device that is down takes addresses, but no routes; settings must be there
// before the first address and the carrier. addrFlags go with every address.
func (in *Inside) finish(a Attachment, addrFlags uint32) error {
	l, err := in.arrive(a)
	if err != nil {
		return err
	}
	if err := in.settings(a); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	table, err := in.joinVRF(l, a.VRF)
	if err != nil {
		return fmt.Errorf("%s: vrf: %w", a.IfName, err)
	}
	if err := in.tune(l, a.Tuning); err != nil {
		return fmt.Errorf("%s: tuning: %w", a.IfName, err)
	}
	if !a.DAD {
		addrFlags |= unix.IFA_F_NODAD
	}
	for _, p := range a.Addresses {
		if err := in.c.addUsable(l, p, addrFlags); err != nil {
			return fmt.Errorf("%s: %w", a.IfName, err)
		}
	}
	if err := in.c.setLink(ifinfo(l.index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("%s: set up: %w", a.IfName, err)
	}
	if a.DAD {
		if err := in.awaitDAD(l.index); err != nil {
			return fmt.Errorf("%s: %w", a.IfName, err)
		}
	}
	if err := in.addRoutes(l.index, table, a); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	for _, p := range a.Addresses {
		if p.Addr().Is6() {
			in.unsettled = append(in.unsettled, deviceAddr{p.Addr(), l.index})
		}
	}
	return in.policiesAtEnd(l, a)
}

// arrive finds the interface and gives it the name, MTU and MAC that it was not
// made with, in one request.
func (in *Inside) arrive(a Attachment) (link, error) {
	name := a.IfName
	if a.Arrived != "" {
		name = a.Arrived
	}
	l, err := in.c.linkByName(name)
	if err != nil {
		return l, err
	}
	changes := []nl.NetlinkRequestData{ifinfo(l.index, 0, 0)}
	if name != a.IfName {
		// Before 6.2 a device that is up can't be renamed: EBUSY. It loses nothing by
		// going down, since it has just arrived.
		changes = append(changes, nameAttr(a.IfName))
		if l.up() {
			if err := in.c.setLink(ifinfo(l.index, 0, unix.IFF_UP)); err != nil {
				return l, fmt.Errorf("%s: set down: %w", name, err)
			}
		}
	}
	if a.MTU != 0 && a.MTU != l.mtu {
		changes = append(changes, mtuAttr(a.MTU))
	}
	if a.MAC != "" && a.MAC != l.mac.String() {
		mac, err := ParseMAC(a.MAC)
		if err != nil {
			return l, fmt.Errorf("%s: MAC %q: %w", a.IfName, a.MAC, err)
		}
		changes = append(changes, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	if len(changes) == 1 {
		return l, nil
	}
	if err := in.c.setLink(changes...); err != nil {
		return l, fmt.Errorf("%s: set name %s, MTU %d, MAC %s: %w", name, a.IfName, a.MTU, a.MAC, err)
	}
	l.name = a.IfName
	return l, nil
}

// settings are written before the interface can hear or say anything.
func (in *Inside) settings(a Attachment) error {
	if len(a.Addresses) > 0 && a.MAC != "" && a.MAC != deriveMAC(a.Addresses).String() {
		// Who had the address before may still be in the neighbours' caches.
		if err := in.c.announceMAC(a.IfName); err != nil {
			return err
		}
	}
	if a.NoIPv6 {
		// CVE-2024-32473: an IPv4-only network would still speak link-local IPv6.
		if err := in.c.setIPv6(a.IfName, "disable_ipv6", "1"); !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	}
	if len(a.Addresses) == 0 {
		return nil // a bare link: whoever configures it decides
	}
	// Without, IPv6 addresses are gone when the interface was down for a moment, and
	// IPv4's stay.
	if err := in.c.setIPv6(a.IfName, "keep_addr_on_down", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return in.c.ownRoutes(a.IfName, a.DAD)
}

const (
	dadLimit = 10 * time.Second // random delay up to 1 s, a probe of 1 s, and a loaded machine
	dadPause = 20 * time.Millisecond
)

// awaitDAD waits until no address is tentative.
func (in *Inside) awaitDAD(index int) error {
	for deadline := time.Now().Add(dadLimit); ; time.Sleep(dadPause) {
		addrs, err := in.c.addrs(index)
		if err != nil {
			return err
		}
		var waiting netip.Prefix
		for _, a := range addrs {
			if a.flags&unix.IFA_F_DADFAILED != 0 {
				return fmt.Errorf("address %s: another host on the network has it", a.prefix)
			}
			if a.tentative() {
				waiting = a.prefix
			}
		}
		if !waiting.IsValid() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %s: still tentative after %s", waiting, dadLimit)
		}
	}
}

const localPause = 50 * time.Microsecond

// Settle is the end of Configure, for all interfaces: the network is usable when it returns. Whoever has other things
// to do meanwhile does them first. It waits until the kernel delivers what comes to IPv6 addresses without duplicate
// address detection: they are not tentative, yet a worker of the kernel puts them into the local table a moment later
// (addrconf_dad_work in net/ipv6/addrconf.c), and a packet that comes before that is lost.
func (in *Inside) Settle() error {
	for _, a := range in.unsettled {
		for deadline := time.Now().Add(dadLimit); ; pause(localPause) {
			settled, err := in.settled(a)
			if settled {
				break
			}
			if time.Now().After(deadline) {
				return errors.Join(fmt.Errorf("address %s: the kernel doesn't deliver to it after %s", a.Addr, dadLimit), err)
			}
		}
	}
	in.unsettled = nil
	return nil
}

// settled tells whether the kernel delivers to a, or a is gone: a policy may have taken IPv6 from the interface.
func (in *Inside) settled(a deviceAddr) (bool, error) {
	oif := nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(a.index))) // for the table, if the device is in a VRF
	r, err := in.c.lookUpRoute(a.Addr, oif)
	if err == nil && r.kind == unix.RTN_LOCAL {
		return true, nil
	}
	there, addrsErr := in.c.addrs(a.index)
	if addrsErr != nil {
		return false, addrsErr
	}
	return !slices.ContainsFunc(there, func(t ifaddr) bool { return t.prefix.Addr() == a.Addr }), err
}

// pause sleeps for less than a millisecond, which time.Sleep makes one of it when nothing else
// runs: it waits by epoll_wait(2) then.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&t, nil) // a signal only shortens it
}

// addRoutes adds routes on the link first, for they may lead to a gateway. table is for
// those that name none; 0 is the main one.
func (in *Inside) addRoutes(index, table int, a Attachment) error {
	a.Routes = routesIn(table, a.Routes)
	for _, r := range a.Routes {
		if !r.Gateway.IsValid() {
			if err := in.c.addFurtherRoute(inner(index, r, a)); err != nil {
				return err
			}
		}
	}
	for _, gw := range a.Gateways {
		if err := in.addDefault(index, table, gw); err != nil {
			return err
		}
	}
	for _, r := range a.Routes {
		if r.Gateway.IsValid() {
			if err := in.c.addFurtherRoute(inner(index, r, a)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inner is r as the kernel gets it.
func inner(index int, r Route, a Attachment) fibRoute {
	f := fibRoute{
		dst: r.Dst, via: r.Gateway, index: index,
		onLink: r.OnLink, mtu: r.MTU, metric: r.Metric, advMSS: r.AdvMSS, table: r.Table,
	}
	switch {
	case !r.Dst.Addr().Is4(): // IPv6 has none
	case r.Scope != 0:
		f.scope = uint8(r.Scope)
	case !r.Gateway.IsValid():
		f.scope = unix.RT_SCOPE_LINK
	}
	if a.Strategy == "ptp" {
		// Its routes to its own subnets stand for the kernel's, which have a source.
		for _, p := range a.Addresses {
			if p.Contains(r.Dst.Addr()) && r.Dst.Bits() >= p.Bits() {
				f.src = p.Addr()
				break
			}
		}
	}
	return f
}

const (
	metricIPv6   = 1024 // IP6_RT_PRIO_USER: what the kernel makes of 0
	metricSecond = 100  // of an IPv4 default route that isn't the first
	maxDefaults  = 256
)

// addDefault adds a default route. The first network's is the one in use; each
// further one of the family comes behind it, with the next free metric (IPv4:
// none, 101, 102, ...; IPv6: 1024, 1025, ...), and takes over when the first
// network's interface goes down.
func (in *Inside) addDefault(index, table int, gateway netip.Addr) error {
	r := fibRoute{dst: defaultRoute(gateway), via: gateway, index: index, table: table}
	base := metricSecond
	if gateway.Is6() {
		base = metricIPv6
	}
	err := in.c.addRoute(r)
	for n := 1; errors.Is(err, unix.EEXIST) && n < maxDefaults; n++ {
		r.metric = base + n
		err = in.c.addRoute(r)
	}
	return err
}
