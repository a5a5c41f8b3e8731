package netsetup

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An ifaddr is one address of a device, as the kernel holds it.
type ifaddr struct {
	prefix netip.Prefix
	flags  uint32 // IFA_F_...
}

func (a ifaddr) tentative() bool {
	return a.flags&unix.IFA_F_TENTATIVE != 0 && a.flags&unix.IFA_F_OPTIMISTIC == 0
}

func (a ifaddr) linkLocal() bool {
	return a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast()
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addAddr gives a device an address. IFA_F_NODAD among flags makes an IPv6 one
// usable at once instead of after one or two seconds; IPv4 ignores it.
func (c *rtnl) addAddr(index int, p netip.Prefix, flags uint32) error {
	data := addrRequest(index, p, flags)
	if p.Addr().Is4() && p.Bits() < 31 {
		// The kernel sets none itself: without it, the address has no broadcast.
		data = append(data, nl.NewRtAttr(unix.IFA_BROADCAST, lastAddr(p).AsSlice()))
	}
	err := c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
	if err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// addUsable is addAddr for a device that is to have the address whatever the host's
// default for IPv6 on new devices is: it asks only the kernel that has refused.
func (c *rtnl) addUsable(l link, p netip.Prefix, flags uint32) error {
	err := c.addAddr(l.index, p, flags)
	if p.Addr().Is6() && errors.Is(err, unix.EACCES) { // inet6_addr_add: disable_ipv6
		if err := c.setIPv6(l.name, "disable_ipv6", "0"); err != nil {
			return err
		}
		return c.addAddr(l.index, p, flags)
	}
	return err
}

// delAddr takes an address off a device. One that is gone is no error.
func (c *rtnl) delAddr(index int, p netip.Prefix) error {
	err := c.change(unix.RTM_DELADDR, 0, addrRequest(index, p, 0)...)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", p, err)
	}
	return nil
}

func addrRequest(index int, p netip.Prefix, flags uint32) []nl.NetlinkRequestData {
	h := nl.NewIfAddrmsg(family(p.Addr()))
	h.Index, h.Prefixlen = uint32(index), uint8(p.Bits())
	if p.Addr().Is4() && p.Addr().IsLinkLocalUnicast() {
		h.Scope = unix.RT_SCOPE_LINK
	}
	value := p.Addr().AsSlice()
	data := []nl.NetlinkRequestData{h, nl.NewRtAttr(unix.IFA_LOCAL, value), nl.NewRtAttr(unix.IFA_ADDRESS, value)}
	if flags != 0 {
		data = append(data, nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
	}
	return data
}

// addrs lists the addresses of a device, both families. The kernel filters by
// device, so it costs the same on a host with thousands.
func (c *rtnl) addrs(index int) ([]ifaddr, error) {
	var all []ifaddr
	for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
		h := nl.NewIfAddrmsg(af)
		h.Index = uint32(index)
		msgs, err := c.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, h)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		for _, m := range msgs {
			if a, i := parseAddr(m); i == index {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

func parseAddr(b []byte) (a ifaddr, index int) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0
	}
	h := nl.DeserializeIfAddrmsg(b)
	var addr, local netip.Addr
	a.flags = uint32(h.Flags)
	attrs(b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		case unix.IFA_LOCAL: // differs from IFA_ADDRESS where that is a peer's
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			a.flags = uint32(u32(v))
		}
	})
	if local.IsValid() {
		addr = local
	}
	a.prefix = netip.PrefixFrom(addr, int(h.Prefixlen))
	return a, int(h.Index)
}
