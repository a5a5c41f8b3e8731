package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A fibRoute is a route as it is asked for or as the kernel holds it.
type fibRoute struct {
	dst    netip.Prefix
	via    netip.Addr // zero: on the link
	src    netip.Addr // zero: the kernel's choice
	index  int        // of the device
	scope  uint8
	kind   uint8 // RTN_...; 0 = unicast
	onLink bool
	mtu    int
	advMSS int
	metric int
	table  int // 0 = main
}

func (r fibRoute) String() string {
	var b strings.Builder
	b.WriteString("route ")
	b.WriteString(r.dst.String())
	if r.dst.Bits() == 0 {
		b.Reset()
		b.WriteString("default route")
	}
	if r.via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.via)
	}
	for _, part := range []struct {
		name  string
		value int
	}{{"metric", r.metric}, {"table", r.table}, {"mtu", r.mtu}, {"advmss", r.advMSS}} {
		if part.value != 0 {
			fmt.Fprintf(&b, " %s %d", part.name, part.value)
		}
	}
	return b.String()
}

// defaultRoute returns the destination 0.0.0.0/0 or ::/0 of gateway's family.
func defaultRoute(gateway netip.Addr) netip.Prefix {
	if gateway.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// addRoute adds a route; one to the same destination with the same metric is EEXIST.
func (c *rtnl) addRoute(r fibRoute) error { return c.newRoute(r, unix.NLM_F_EXCL) }

// addFurtherRoute adds a route beside others to the same destination, as the CNI
// plugins do: before those of IPv4, as another path of those of IPv6. The same one
// again is EEXIST.
func (c *rtnl) addFurtherRoute(r fibRoute) error { return c.newRoute(r, 0) }

func (c *rtnl) newRoute(r fibRoute, flags int) error {
	h := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(family(r.dst.Addr())), Dst_len: uint8(r.dst.Bits()),
		Protocol: unix.RTPROT_BOOT, Scope: r.scope, Type: unix.RTN_UNICAST,
	}}
	table := tableAttr(h, r.table)
	if r.onLink {
		h.Flags = unix.RTNH_F_ONLINK
	}
	data := []nl.NetlinkRequestData{h, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.index)))}
	if r.dst.Bits() > 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_DST, r.dst.Addr().AsSlice()))
	}
	if r.via.IsValid() {
		data = append(data, gatewayAttr(r))
	}
	if r.src.IsValid() {
		data = append(data, nl.NewRtAttr(unix.RTA_PREFSRC, r.src.AsSlice()))
	}
	if r.metric > 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.metric))))
	}
	if r.mtu > 0 || r.advMSS > 0 {
		data = append(data, r.metrics())
	}
	if err := c.change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|flags, append(data, table...)...); err != nil {
		return fmt.Errorf("add %s: %w", r, err)
	}
	return nil
}

func (r fibRoute) metrics() *nl.RtAttr {
	metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
	if r.mtu > 0 {
		metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(uint32(r.mtu)))
	}
	if r.advMSS > 0 {
		metrics.AddRtAttr(unix.RTAX_ADVMSS, nl.Uint32Attr(uint32(r.advMSS)))
	}
	return metrics
}

// tableAttr puts a table's number into h, or returns it as an attribute where it
// has more than 8 bits.
func tableAttr(h *nl.RtMsg, table int) []nl.NetlinkRequestData {
	switch {
	case table == 0:
		h.Table = unix.RT_TABLE_MAIN
	case table < 256:
		h.Table = uint8(table)
	default:
		return []nl.NetlinkRequestData{nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(table)))}
	}
	return nil
}

// gatewayAttr names the gateway: by RTA_VIA if an IPv4 route goes over an IPv6
// router (RFC 5549, 5.2).
func gatewayAttr(r fibRoute) *nl.RtAttr {
	if r.dst.Addr().Is4() && r.via.Is6() {
		af := nl.Uint16Attr(unix.AF_INET6)
		return nl.NewRtAttr(unix.RTA_VIA, append(af, r.via.AsSlice()...))
	}
	return nl.NewRtAttr(unix.RTA_GATEWAY, r.via.AsSlice())
}

// routes lists a table's routes of a device, both families, as far as the kernel's
// own ones for addresses and multicast are not concerned; 0 is the main table.
func (c *rtnl) routes(index, table int) ([]fibRoute, error) {
	var all []fibRoute
	for _, af := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := &nl.RtMsg{RtMsg: unix.RtMsg{Family: af}}
		data := append([]nl.NetlinkRequestData{h}, tableAttr(h, table)...)
		msgs, err := c.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, append(data,
			nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))...)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, m := range msgs {
			for _, r := range parseRoutes(m) {
				if r.index == index && r.kind == unix.RTN_UNICAST {
					r.table = table
					all = append(all, r)
				}
			}
		}
	}
	return all, nil
}

// lookUpRoute returns the table's entry for traffic to dst (FIBMATCH, 4.13): one
// request, however long the table. more narrows the question, as to a device.
func (c *rtnl) lookUpRoute(dst netip.Addr, more ...nl.NetlinkRequestData) (fibRoute, error) {
	h := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(family(dst)), Dst_len: uint8(dst.BitLen()), Flags: unix.RTM_F_FIB_MATCH,
	}}
	question := append([]nl.NetlinkRequestData{h, nl.NewRtAttr(unix.RTA_DST, dst.AsSlice())}, more...)
	msg, err := c.get(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, question...)
	if err != nil {
		return fibRoute{}, fmt.Errorf("look up route to %s: %w", dst, err)
	}
	return parseRoutes(msg)[0], nil
}

// parseRoutes returns one route for each next hop, and at least one.
func parseRoutes(b []byte) []fibRoute {
	var r fibRoute
	if len(b) < unix.SizeofRtMsg {
		return []fibRoute{r}
	}
	var hops []func(*fibRoute)
	h := nl.DeserializeRtMsg(b)
	r.scope, r.kind = h.Scope, h.Type
	r.onLink = h.Flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if h.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	attrs(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_PREFSRC:
			r.src, _ = netip.AddrFromSlice(v)
		case unix.RTA_PRIORITY:
			r.metric = u32(v)
		case unix.RTA_METRICS:
			attrs(v, func(kind uint16, v []byte) {
				switch kind {
				case unix.RTAX_MTU:
					r.mtu = u32(v)
				case unix.RTAX_ADVMSS:
					r.advMSS = u32(v)
				}
			})
		case unix.RTA_MULTIPATH:
			hops = parseHops(v)
		default:
			r.hop(kind, v)
		}
	})
	r.dst = netip.PrefixFrom(dst, int(h.Dst_len))
	if len(hops) == 0 {
		return []fibRoute{r}
	}
	var all []fibRoute
	for _, hop := range hops {
		one := r
		hop(&one)
		all = append(all, one)
	}
	return all
}

// parseHops reads RTA_MULTIPATH: what each next hop adds to the route.
func parseHops(v []byte) (hops []func(*fibRoute)) {
	for len(v) >= unix.SizeofRtNexthop {
		h := nl.DeserializeRtNexthop(v)
		index, n := int(h.Ifindex), int(h.RtNexthop.Len)
		if n < unix.SizeofRtNexthop || n > len(v) {
			break
		}
		of := v[unix.SizeofRtNexthop:n]
		hops = append(hops, func(r *fibRoute) {
			r.index = index
			attrs(of, r.hop)
		})
		v = v[min((n+3)&^3, len(v)):]
	}
	return hops
}

// hop takes what may stand in a route itself or in its first next hop.
func (r *fibRoute) hop(kind uint16, v []byte) {
	switch kind {
	case unix.RTA_OIF:
		r.index = u32(v)
	case unix.RTA_GATEWAY:
		r.via, _ = netip.AddrFromSlice(v)
	case unix.RTA_VIA:
		if len(v) > 2 {
			r.via, _ = netip.AddrFromSlice(v[2:])
		}
	}
}
