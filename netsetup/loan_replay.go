package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The messages by which the kernel describes addresses, routes and neighbours are
// nearly those by which they are made. Here is what differs.

// rawHeader is the fixed part of a request, in the kernel's own form.
type rawHeader []byte

func (r rawHeader) Len() int          { return len(r) }
func (r rawHeader) Serialize() []byte { return r }

// addrMessages lists the addresses of a device, but for those that the kernel makes up
// for privacy.
func (c *rtnl) addrMessages(index int) (all [][]byte, err error) {
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		h := nl.NewIfAddrmsg(af)
		h.Index = uint32(index)
		msgs, err := c.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, h)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		for _, m := range msgs {
			a, i := parseAddr(m)
			if i == index && (af == unix.AF_INET || a.flags&unix.IFA_F_TEMPORARY == 0) {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// backwardIPv6 is the order in which addresses are added to be listed as they were:
// the kernel puts the newest IPv6 address first, and the newest IPv4 one last.
func backwardIPv6(addrs [][]byte) [][]byte {
	isIPv6 := func(m []byte) bool { return m[0] == unix.AF_INET6 }
	first := slices.IndexFunc(addrs, isIPv6)
	if first < 0 {
		return addrs
	}
	ordered := slices.Clone(addrs)
	slices.Reverse(ordered[first:])
	return ordered
}

func addrName(raw []byte) string {
	a, _ := parseAddr(raw)
	return a.prefix.String()
}

// givenFlags are the flags of an address that its maker chooses.
const givenFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// A revival is where and how an address is made again.
type revival struct {
	index     int
	age       time.Duration
	then, now string // the device's name, which a label begins with
	flags     uint32 // more of them
}

// address is the request that makes an address again; nil if its life has ended.
func (to revival) address(raw []byte) []nl.NetlinkRequestData {
	a, _ := parseAddr(raw)
	if len(raw) < unix.SizeofIfAddrmsg {
		return nil
	}
	h := slices.Clone(raw[:unix.SizeofIfAddrmsg])
	flags := a.flags&givenFlags | to.flags
	h[2] = byte(flags)
	nl.NativeEndian().PutUint32(h[4:], uint32(to.index))
	data := []nl.NetlinkRequestData{rawHeader(h)}
	alive := true
	attrs(raw[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFA_FLAGS:
			v = nl.Uint32Attr(flags)
		case unix.IFA_CACHEINFO:
			v, alive = aged(v, to.age)
		case unix.IFA_LABEL:
			if rest, ok := strings.CutPrefix(text(v), to.then); ok {
				label := to.now + rest
				v = nl.ZeroTerminated(label[:min(len(label), maxIfName)])
			}
		}
		data = append(data, nl.NewRtAttr(int(kind), v))
	})
	if !alive {
		return nil
	}
	return data
}

// aged takes age off the two lives that an ifa_cacheinfo begins with.
func aged(info []byte, age time.Duration) (_ []byte, alive bool) {
	const forever = 1<<32 - 1
	if len(info) < unix.SizeofIfaCacheinfo {
		return info, true
	}
	info = slices.Clone(info)
	left := func(at int) uint32 {
		life := nl.NativeEndian().Uint32(info[at:])
		if gone := uint32(age / time.Second); life != forever {
			life -= min(life, gone)
		}
		nl.NativeEndian().PutUint32(info[at:], life)
		return life
	}
	left(0)
	return info, left(4) > 0
}

// routeMessages lists the routes over a device, of all tables, but for those that the
// kernel makes itself with an address or an interface.
func (c *rtnl) routeMessages(index int) (all [][]byte, err error) {
	for _, af := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := &nl.RtMsg{RtMsg: unix.RtMsg{Family: af}}
		msgs, err := c.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, h, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
		for _, m := range msgs {
			if len(m) < unix.SizeofRtMsg {
				continue
			}
			r := nl.DeserializeRtMsg(m)
			if r.Protocol != unix.RTPROT_KERNEL && r.Flags&unix.RTM_F_CLONED == 0 {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// routeNextHopID is RTA_NH_ID.
const routeNextHopID = 30

// A routeRequest makes one route, or one of the hops of a route.
type routeRequest struct {
	name  string
	flags int
	data  []nl.NetlinkRequestData
}

const givenHopFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE

// A replayedRoute is a route message on its way to be a request.
type replayedRoute struct {
	header   []byte
	attrs    []nl.NetlinkRequestData
	hops     []byte // RTA_MULTIPATH
	from, to int    // the device's index then and now
}

// routesAgain are the requests that make a route again, none if its life has ended. The
// kernel has taken an IPv4 route away whole, and of an IPv6 one only the hops over
// the device.
func routesAgain(raw []byte, from, to int, age time.Duration) (requests []routeRequest) {
	if len(raw) < unix.SizeofRtMsg {
		return nil
	}
	r := replayedRoute{header: slices.Clone(raw[:unix.SizeofRtMsg]), from: from, to: to}
	flags := nl.NativeEndian().Uint32(r.header[8:])
	nl.NativeEndian().PutUint32(r.header[8:], flags&givenHopFlags)
	alive := true
	attrs(raw[unix.SizeofRtMsg:], func(kind uint16, v []byte) { alive = r.take(kind, v, age) && alive })
	if !alive {
		return nil
	}
	name := parseRoutes(raw)[0].String()
	if r.hops != nil && raw[0] == unix.AF_INET6 {
		for _, hop := range r.splitHops() {
			requests = append(requests, routeRequest{name, unix.NLM_F_CREATE | unix.NLM_F_APPEND, hop})
		}
		return requests
	}
	if r.hops != nil {
		r.add(unix.RTA_MULTIPATH, r.patchHops())
	}
	data := append([]nl.NetlinkRequestData{rawHeader(r.header)}, r.attrs...)
	return []routeRequest{{name, unix.NLM_F_CREATE | unix.NLM_F_EXCL, data}}
}

func (r *replayedRoute) add(kind uint16, v []byte) {
	r.attrs = append(r.attrs, nl.NewRtAttr(int(kind), v))
}

// take takes one attribute and tells whether the route still lives.
func (r *replayedRoute) take(kind uint16, v []byte, age time.Duration) (alive bool) {
	switch kind {
	case unix.RTA_OIF:
		r.add(kind, nl.Uint32Attr(uint32(r.to)))
	case unix.RTA_MULTIPATH:
		r.hops = slices.Clone(v)
	case routeNextHopID: // that object went with the device; what it meant stands beside it
	case unix.RTA_CACHEINFO:
		const userHZ = 100
		if len(v) < 12 {
			return true
		}
		expires := u32(v[8:])
		if expires == 0 {
			return true
		}
		left := expires/userHZ - int(age/time.Second)
		if left > 0 {
			r.add(unix.RTA_EXPIRES, nl.Uint32Attr(uint32(left)))
		}
		return left > 0
	case unix.RTA_METRICS, unix.RTA_ENCAP:
		r.add(kind|unix.NLA_F_NESTED, v)
	default:
		r.add(kind, v)
	}
	return true
}

// eachHop calls f with each struct rtnexthop of a route of several, with its
// attributes behind it.
func eachHop(hops []byte, f func(hop []byte)) {
	for len(hops) >= unix.SizeofRtNexthop {
		n := int(nl.NativeEndian().Uint16(hops))
		if n < unix.SizeofRtNexthop || n > len(hops) {
			return
		}
		f(hops[:n])
		hops = hops[min((n+3)&^3, len(hops)):]
	}
}

func (r *replayedRoute) patchHops() []byte {
	eachHop(r.hops, func(hop []byte) {
		hop[2] &= givenHopFlags
		if u32(hop[4:]) == r.from {
			nl.NativeEndian().PutUint32(hop[4:], uint32(r.to))
		}
	})
	return r.hops
}

func (r *replayedRoute) splitHops() (routes [][]nl.NetlinkRequestData) {
	eachHop(r.hops, func(hop []byte) {
		if u32(hop[4:]) != r.from {
			return
		}
		h := slices.Clone(r.header)
		nl.NativeEndian().PutUint32(h[8:], uint32(hop[2]&givenHopFlags))
		data := append([]nl.NetlinkRequestData{rawHeader(h)}, r.attrs...)
		data = append(data, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.to))))
		attrs(hop[unix.SizeofRtNexthop:], func(kind uint16, v []byte) { data = append(data, nl.NewRtAttr(int(kind), v)) })
		routes = append(routes, data)
	})
	return routes
}

// restoreRoutes makes the routes again, as often as another one makes a further one
// possible: the route to a gateway.
func (h *Host) restoreRoutes(index int, l *loan, lost func(string, error)) {
	var left []routeRequest
	for _, raw := range l.Device.Routes {
		left = append(left, routesAgain(raw, l.Device.Index, index, l.age())...)
	}
	for {
		var failed []routeRequest
		var errs []error
		for _, r := range left {
			if err := existing(h.c.change(unix.RTM_NEWROUTE, r.flags, r.data...)); err != nil {
				failed, errs = append(failed, r), append(errs, err)
			}
		}
		if len(failed) == len(left) {
			for i, r := range failed {
				lost(r.name, errs[i])
			}
			return
		}
		left = failed
	}
}

// neighbourMessages lists the neighbours of a device that people wrote down.
func (c *rtnl) neighbourMessages(index int) (all [][]byte, err error) {
	const sizeofNdMsg, permanent, ifIndex = 12, 0x80, 8 // NUD_PERMANENT, NDA_IFINDEX
	for _, af := range []byte{unix.AF_INET, unix.AF_INET6} {
		h := make(rawHeader, sizeofNdMsg)
		h[0] = af
		msgs, err := c.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, h, nl.NewRtAttr(ifIndex, nl.Uint32Attr(uint32(index))))
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err
		}
		for _, m := range msgs {
			if len(m) >= sizeofNdMsg && u32(m[4:]) == index && m[8]&permanent != 0 {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

func neighbourAgain(raw []byte, index int) []nl.NetlinkRequestData {
	const sizeofNdMsg, cacheInfo, probes = 12, 3, 4 // NDA_CACHEINFO, NDA_PROBES
	if len(raw) < sizeofNdMsg {
		return nil
	}
	h := slices.Clone(raw[:sizeofNdMsg])
	nl.NativeEndian().PutUint32(h[4:], uint32(index))
	data := []nl.NetlinkRequestData{rawHeader(h)}
	attrs(raw[sizeofNdMsg:], func(kind uint16, v []byte) {
		if kind != cacheInfo && kind != probes {
			data = append(data, nl.NewRtAttr(int(kind), v))
		}
	})
	return data
}

// keptAddresses are those of a device that go with it into a container as the OCI
// runtime specification wants it: permanent and of global scope.
func keptAddresses(all [][]byte) (kept [][]byte, prefixes []netip.Prefix) {
	for _, raw := range all {
		a, _ := parseAddr(raw)
		if a.flags&unix.IFA_F_PERMANENT != 0 && raw[3] == unix.RT_SCOPE_UNIVERSE {
			kept, prefixes = append(kept, raw), append(prefixes, a.prefix)
		}
	}
	return kept, prefixes
}

// addKept gives the device its addresses back under its name inside.
func (c *rtnl) addKept(l link, kept [][]byte, then string) error {
	for _, raw := range backwardIPv6(kept) {
		data := revival{index: l.index, then: then, now: l.name, flags: unix.IFA_F_NODAD}.address(raw)
		if data == nil {
			return errors.New("an address that can't be read")
		}
		if err := existing(c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)); err != nil {
			return fmt.Errorf("add address %s: %w", addrName(raw), err)
		}
	}
	return nil
}

// addrWords are an address that is made again inside in the words of ip(8).
func addrWords(raw []byte, then, now string) string {
	a, _ := parseAddr(raw)
	words := a.prefix.String()
	var flags string
	attrs(raw[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		other, _ := netip.AddrFromSlice(v)
		switch kind {
		case unix.IFA_ADDRESS:
			if other != a.prefix.Addr() {
				words = a.prefix.Addr().String() + " peer " + netip.PrefixFrom(other, a.prefix.Bits()).String()
			}
		case unix.IFA_BROADCAST:
			words += " brd " + other.String()
		case unix.IFA_LABEL:
			if rest, ok := strings.CutPrefix(text(v), then); ok && rest != "" {
				words += " label " + word(now+rest)
			}
		case unix.IFA_RT_PRIORITY:
			words += " metric " + strconv.Itoa(u32(v))
		}
	})
	if a.flags&unix.IFA_F_NOPREFIXROUTE != 0 {
		flags += " noprefixroute"
	}
	if a.flags&unix.IFA_F_HOMEADDRESS != 0 && a.prefix.Addr().Is6() {
		flags += " home"
	}
	if a.prefix.Addr().Is6() {
		flags += " nodad"
	}
	return words + flags
}
