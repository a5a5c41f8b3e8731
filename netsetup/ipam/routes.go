package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A hostRoute is a route of the host, of any table and type: its own addresses
// are routes as well (table local).
type hostRoute struct {
	dst  netip.Prefix
	link int // 0: of no device
}

// describe names r as ip does.
func (r hostRoute) describe(host routeSource) string {
	if r.link == 0 {
		return r.dst.String()
	}
	return r.dst.String() + " dev " + host.linkName(r.link)
}

// A routeSource is what a default network asks of the host. The tests have
// another than the kernel.
type routeSource interface {
	routes(ctx context.Context) ([]hostRoute, error)
	index(name string) (int, error) // 0: there is none
	linkName(index int) string
	ipv6() bool
}

// inTheWay finds a route that overlaps p and isn't the bridge's own. Default
// routes overlap everything and are in nobody's way.
func inTheWay(p netip.Prefix, routes []hostRoute, bridge int) (hostRoute, bool) {
	for _, r := range routes {
		if r.dst.Bits() > 0 && r.dst.Overlaps(p) && (bridge == 0 || r.link != bridge) {
			return r, true
		}
	}
	return hostRoute{}, false
}

// kernel is the network namespace of the calling process.
type kernel struct{}

// index asks by ioctl: two system calls, where netlink takes a socket and two more.
func (kernel) index(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: socket: %w", name, err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	switch err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); {
	case errors.Is(err, unix.ENODEV):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%s: look up: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

func (kernel) linkName(index int) string {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		defer h.Close()
		if link, err := h.LinkByIndex(index); err == nil {
			return link.Attrs().Name
		}
	}
	return fmt.Sprintf("of index %d", index)
}

// ipv6 says whether the kernel has IPv6: not if it was left out, or with
// ipv6.disable=1 on its command line.
func (kernel) ipv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// routes reads all routes, once in the life of a default network and whenever
// its bridge is made: one dump a family, read again if the kernel says that the
// table changed meanwhile.
func (kernel) routes(ctx context.Context) ([]hostRoute, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(10 * time.Second); err != nil {
		return nil, fmt.Errorf("netlink: timeout: %w", err)
	}
	var all []hostRoute
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(ctx, h, family)
		if err != nil {
			return nil, fmt.Errorf("routes of the host: %w", err)
		}
		all = append(all, routes...)
	}
	return all, nil
}

func dump(ctx context.Context, h *netlink.Handle, family int) ([]hostRoute, error) {
	const tries = 5
	for try := 1; ; try++ {
		var routes []hostRoute
		anyTable := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		err := h.RouteListFilteredIter(family, anyTable, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			if dst, ok := prefixOf(r); ok {
				routes = append(routes, hostRoute{dst: dst, link: r.LinkIndex})
			}
			return true
		})
		if err == nil || !errors.Is(err, netlink.ErrDumpInterrupted) || try == tries {
			return routes, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// prefixOf returns where r leads; nothing for default and multicast routes.
func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	if addr = addr.Unmap(); !ok || addr.IsMulticast() {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(addr, ones)
	return p, p.IsValid()
}
