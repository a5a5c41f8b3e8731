package netsetup

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// aliasPrefix starts the alias of every device on the host that nsinit made.
const aliasPrefix = "nsinit "

// A pair is what a veth pair is made with.
type pair struct {
	network string // the network's name, for errors and the alias
	owner   string // the container's id, for the alias; "" = nobody
	ifName  string // the inner end's final name
	mac     net.HardwareAddr
	mtu     int // of both ends
	master  int // index of the bridge that the host's end is a port of; 0 = none

	hairpin, isolated bool // of the port
}

// nameTries is how often another random name is tried: each has 50 bits.
const nameTries = 4

// addPair makes a veth pair whole in one request: the host's end a port and up, the
// other one already in target under its final name. Moving and renaming a device
// afterwards would wait for RCU grace periods, about 20 ms. It returns the name of
// the host's end, which dies with target.
//
// The inner end can't be made up in that request (ENOTCONN, and the pair is gone
// again), so nothing has a carrier before Configure: what is set on the host's
// end until then comes in time.
func (h *Host) addPair(target *NetNS, p pair) (string, error) {
	for try := 1; ; try++ {
		name := hostIfName()
		err := h.c.addLink(pairRequest(name, target, p)...)
		if errors.Is(err, unix.EEXIST) {
			// The kernel doesn't say which of the two names is taken.
			if _, look := h.c.linkByName(name); look == nil && try < nameTries {
				continue
			}
			return "", fmt.Errorf("%s: make: the container's network namespace has an interface of this name already: %w", p.ifName, err)
		}
		if err != nil {
			return "", fmt.Errorf("%s: make: %w", p.ifName, err)
		}
		if err := h.finishHostEnd(name, p); err != nil {
			h.dropLink(name)
			return "", err
		}
		return name, nil
	}
}

func pairRequest(name string, target *NetNS, p pair) []nl.NetlinkRequestData {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, attr := range append(endAttrs(p.ifName, p.mtu),
		nl.NewRtAttr(unix.IFLA_ADDRESS, p.mac),
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target.fd())))) {
		peer.AddChild(attr)
	}
	request := []nl.NetlinkRequestData{ifinfo(0, unix.IFF_UP, unix.IFF_UP)}
	for _, attr := range endAttrs(name, p.mtu) {
		request = append(request, attr)
	}
	if p.master != 0 {
		request = append(request, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(p.master))))
	}
	return append(request, info)
}

// endAttrs are alike on both ends. One queue: a veth comes with one a CPU, and the
// kernel shrinks it to one later, at a grace period each.
func endAttrs(name string, mtu int) []*nl.RtAttr {
	return []*nl.RtAttr{
		nameAttr(name), mtuAttr(mtu),
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
}

// finishHostEnd sets what the request that makes a pair can't carry: the alias
// (rtnl_create_link ignores it) and, for a port, its options and no link-local
// address of its own. It hears no router advertisement even if it loses its
// bridge.
func (h *Host) finishHostEnd(name string, p pair) error {
	request := []nl.NetlinkRequestData{
		ifinfo(0, 0, 0), nameAttr(name),
		nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(hostAlias(p))),
	}
	if p.master != 0 {
		request = append(request, noLinkLocal())
	}
	if p.hairpin || p.isolated {
		request = append(request, p.portOptions())
	}
	err := h.c.setLink(request...)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		// No IPv6 in this kernel, or none on the device with an MTU below 1280: no
		// link-local address either.
		err = h.c.setLink(without(request, unix.IFLA_AF_SPEC)...)
	}
	if err != nil {
		return fmt.Errorf("%s: set alias and port options: %w", name, err)
	}
	if err := h.c.setIPv6(name, "accept_ra", "0"); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (p pair) portOptions() *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	options := info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	if p.hairpin {
		options.AddRtAttr(nl.IFLA_BRPORT_MODE, nl.Uint8Attr(1))
	}
	if p.isolated {
		options.AddRtAttr(nl.IFLA_BRPORT_ISOLATED, nl.Uint8Attr(1))
	}
	return info
}

func without(request []nl.NetlinkRequestData, kind uint16) (kept []nl.NetlinkRequestData) {
	for _, d := range request {
		if attr, ok := d.(*nl.RtAttr); !ok || attr.Type != kind {
			kept = append(kept, d)
		}
	}
	return kept
}

// hostAlias tells people whose the host's end is: `nsinit web eth0 of lan`. IFALIASZ
// is 256.
func hostAlias(p pair) string {
	alias := aliasPrefix
	if p.owner != "" {
		alias += p.owner + " "
	}
	alias += p.ifName
	if p.network != "" {
		alias += " of " + p.network
	}
	return strings.ToValidUTF8(alias[:min(len(alias), 255)], "")
}

// dropLink removes a device that was made half. Its error would hide the first one.
func (h *Host) dropLink(name string) {
	if l, err := h.c.linkByName(name); err == nil {
		_ = h.c.delLink(l.index)
	}
}

// hostIfName makes up a name that no device has: the kernel frees the host's end
// of a dead container up to half a second late, so a name can't come from the id.
func hostIfName() string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	name := []byte("ns0123456789")
	random(name[2:])
	for i, b := range name[2:] {
		name[2+i] = letters[b%32]
	}
	return string(name)
}

// random fills b, which is short. crypto/rand would do it at the price of a dozen
// package inits in every container. getrandom(2) blocks until the kernel has
// seeded, fails on no kernel of ours, and isn't interrupted below 256 bytes.
func random(b []byte) { _, _ = unix.Getrandom(b, 0) }

// deriveMAC makes a MAC address of the first IPv4 address, else of the first IPv6
// one, so that a neighbour's cache stays true when an address returns in another
// container. Without an address it is random. The two forms differ in the first
// byte; both are locally administered.
func deriveMAC(addrs []netip.Prefix) net.HardwareAddr {
	for _, p := range addrs {
		if a := p.Addr(); a.Is4() {
			b := a.As4()
			return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
		}
	}
	mac := net.HardwareAddr{0x0e, 0, 0, 0, 0, 0}
	if len(addrs) > 0 {
		hash := fnv.New64a()
		_, _ = hash.Write(addrs[0].Addr().AsSlice())
		copy(mac[1:], hash.Sum(nil))
		return mac
	}
	random(mac[1:])
	return mac
}

// undoLink removes a device that nsinit made and marked with its alias.
func (h *Host) undoLink(o Object) error {
	l, err := h.c.linkByName(o.Name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	halfMade := o.Owner == "" && unnamed(l) // a gateway's
	if !halfMade && (!strings.HasPrefix(l.alias, aliasPrefix) || (o.Owner != "" && !ownedBy(l.alias, o.Owner))) {
		return nil
	}
	if err := h.c.delLink(l.index); err != nil {
		return fmt.Errorf("%s: delete: %w", o.Name, err)
	}
	return nil
}

func ownedBy(alias, owner string) bool {
	return strings.HasPrefix(alias, aliasPrefix+owner+" ")
}
