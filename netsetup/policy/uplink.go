package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Somewhere in the Internet: what the kernel says of them is where the default
// route leads, without a look at the whole table. Nothing is sent there.
var (
	somewhere4 = netip.AddrFrom4([4]byte{198, 41, 0, 4}) // a.root-servers.net
	somewhere6 = netip.MustParseAddr("2001:503:ba3e::2:30")
)

// dumpTries is how often an interrupted dump is taken again.
const dumpTries = 8

// routes asks for routes and devices, by one socket in the namespace of the thread
// that opened it.
type routes struct{ *netlink.Handle }

func openRoutes() (routes, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return routes{}, fmt.Errorf("netlink: open: %w", err)
	}
	return routes{h}, nil
}

// uplinks returns the devices that the family's default route leads to; none is no
// error. More than one is a multipath route.
func (r routes) uplinks(family int) ([]netlink.Link, error) {
	to := somewhere4
	if family == 6 {
		to = somewhere6
	}
	found, err := r.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		if noRoute(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("route to %s: %w", to, err)
	}
	return r.links(found)
}

// noRoute tells whether the answer was that there is none, or that it is of a kind
// that leads nowhere (unreachable, prohibit, blackhole).
func noRoute(err error) bool {
	return slices.ContainsFunc([]unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL},
		func(n unix.Errno) bool { return errors.Is(err, n) })
}

// others returns the devices besides the default route's that lead somewhere
// else than to guests of this machine. Bridges and pairs without the default route
// are other people's networks of containers and virtual machines.
func (r routes) others(family int) ([]netlink.Link, error) {
	list, err := r.dump(family)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(rt netlink.Route) bool {
		return rt.Type != unix.RTN_UNICAST || rt.Dst != nil && rt.Dst.IP.IsLinkLocalUnicast() || rt.Dst != nil && rt.Dst.IP.IsMulticast()
	})
	links, err := r.links(list)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		return slices.Contains([]string{"bridge", "veth"}, l.Type()) || l.Attrs().Flags&net.FlagLoopback != 0
	}), nil
}

// dump returns the routes of the family's main table.
func (r routes) dump(family int) ([]netlink.Route, error) {
	number := unix.AF_INET
	if family == 6 {
		number = unix.AF_INET6
	}
	for try := 1; ; try++ {
		list, err := r.RouteListFiltered(number, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err == nil || try == dumpTries || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
}

// links returns the devices of routes, each once. One that has gone is left out.
func (r routes) links(list []netlink.Route) ([]netlink.Link, error) {
	var indexes []int
	for _, rt := range list {
		indexes = append(indexes, rt.LinkIndex)
		for _, hop := range rt.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
	}
	slices.Sort(indexes)
	var links []netlink.Link
	for _, i := range slices.Compact(indexes) {
		if i <= 0 {
			continue
		}
		l, err := r.LinkByIndex(i)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		links = append(links, l)
	}
	return links, nil
}

// advertised returns the names of devices with a route that a router advertisement
// brought, or an address that one keeps alive.
func (r routes) advertised() ([]string, error) {
	list, err := r.dump(6)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(rt netlink.Route) bool { return rt.Protocol != unix.RTPROT_RA })
	links, err := r.links(list)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names, nil
}
