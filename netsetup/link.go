package netsetup

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	skipStats      = 1 << 3 // RTEXT_FILTER_SKIP_STATS, 4.4
	inet6AddrGen   = 8      // IFLA_INET6_ADDR_GEN_MODE, 3.17
	loopbackIfName = "lo"
	loopbackIndex  = 1 // LOOPBACK_IFINDEX: the same in every namespace
)

// A link is what the kernel says of a network device.
type link struct {
	index  int
	name   string
	kind   string // "bridge", "veth", ...; "" for a real device
	alias  string
	mac    net.HardwareAddr
	mtu    int
	master int // index of the bridge that it is a port of; 0 if none
	peer   int // index of the other end, or of the device that it stands on, in whatever namespace; 0 if none
	flags  uint32
	txQLen int    // packets
	data   []byte // IFLA_INFO_DATA, which depends on the kind

	stp          bool // bridge: the spanning tree protocol is on
	forwardDelay int  // bridge: in 1/100 s
	filtering    bool // bridge: VLANs are kept apart
	defaultVLAN  int  // bridge: what a new port is in; 0 = none
	hairpin      bool // port of a bridge
	isolated     bool // port of a bridge
}

func (l link) up() bool      { return l.flags&unix.IFF_UP != 0 }
func (l link) carrier() bool { return l.flags&unix.IFF_LOWER_UP != 0 }

// linkByName asks for one device. errors.Is(err, unix.ENODEV) if there is none.
func (c *rtnl) linkByName(name string) (link, error) {
	l, err := c.link(0, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return l, fmt.Errorf("%s: look up: %w", name, err)
	}
	return l, nil
}

func (c *rtnl) linkByIndex(index int) (link, error) {
	l, err := c.link(index)
	if err != nil {
		return l, fmt.Errorf("device %d: look up: %w", index, err)
	}
	return l, nil
}

func (c *rtnl) link(index int, by ...nl.NetlinkRequestData) (link, error) {
	data := append([]nl.NetlinkRequestData{
		ifinfo(index, 0, 0), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)),
	}, by...)
	msg, err := c.get(unix.RTM_GETLINK, unix.RTM_NEWLINK, data...)
	if err != nil {
		return link{}, err
	}
	return parseLink(msg), nil
}

// ports lists the devices whose master is index.
func (c *rtnl) ports(index int) ([]link, error) {
	msgs, err := c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, ifinfo(0, 0, 0),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(index))))
	if err != nil {
		return nil, fmt.Errorf("device %d: list ports: %w", index, err)
	}
	var links []link
	for _, m := range msgs {
		if l := parseLink(m); l.master == index {
			links = append(links, l)
		}
	}
	return links, nil
}

func parseLink(b []byte) (l link) {
	if len(b) < unix.SizeofIfInfomsg {
		return l
	}
	info := nl.DeserializeIfInfomsg(b)
	l.index, l.flags = int(info.Index), info.Flags
	attrs(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_IFALIAS:
			l.alias = text(v)
		case unix.IFLA_ADDRESS:
			l.mac = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MTU:
			l.mtu = u32(v)
		case unix.IFLA_LINK:
			l.peer = u32(v)
		case unix.IFLA_TXQLEN:
			l.txQLen = u32(v)
		case unix.IFLA_MASTER:
			l.master = u32(v)
		case unix.IFLA_LINKINFO:
			attrs(v, func(kind uint16, v []byte) {
				switch {
				case kind == unix.IFLA_INFO_KIND:
					l.kind = text(v)
				case kind == unix.IFLA_INFO_DATA && l.kind == "bridge":
					l.parseBridge(v)
				case kind == unix.IFLA_INFO_DATA:
					l.data = v
				case kind == nl.IFLA_INFO_SLAVE_DATA:
					l.parsePort(v)
				}
			})
		}
	})
	return l
}

func (l *link) parseBridge(b []byte) {
	attrs(b, func(kind uint16, v []byte) {
		switch kind {
		case nl.IFLA_BR_STP_STATE:
			l.stp = u32(v) != 0
		case nl.IFLA_BR_FORWARD_DELAY:
			l.forwardDelay = u32(v)
		case nl.IFLA_BR_VLAN_FILTERING:
			l.filtering = len(v) > 0 && v[0] != 0
		case nl.IFLA_BR_VLAN_DEFAULT_PVID:
			l.defaultVLAN = u16(v)
		}
	})
}

func (l *link) parsePort(b []byte) {
	attrs(b, func(kind uint16, v []byte) {
		switch kind {
		case nl.IFLA_BRPORT_MODE:
			l.hairpin = len(v) > 0 && v[0] != 0
		case nl.IFLA_BRPORT_ISOLATED:
			l.isolated = len(v) > 0 && v[0] != 0
		}
	})
}

// addLink makes a device; an existing one of its name is an error.
func (c *rtnl) addLink(data ...nl.NetlinkRequestData) error {
	return c.change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

// setLink changes a device in one request.
func (c *rtnl) setLink(data ...nl.NetlinkRequestData) error {
	return c.change(unix.RTM_NEWLINK, 0, data...)
}

// delLink removes the device index. One that is gone is no error.
func (c *rtnl) delLink(index int) error {
	err := c.change(unix.RTM_DELLINK, 0, ifinfo(index, 0, 0))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// ifinfo is the header of a link request: flags are set where change has a bit.
func ifinfo(index int, flags, change uint32) *nl.IfInfomsg {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index, h.Flags, h.Change = int32(index), flags, change
	return h
}

func nameAttr(name string) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))
}

func mtuAttr(mtu int) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))
}

// noLinkLocal keeps the kernel from giving a device an IPv6 link-local address. It
// is refused in a request that creates the device: EAFNOSUPPORT, since the
// device has no IPv6 half yet when the kernel checks it (rtnl_validate_af).
func noLinkLocal() *nl.RtAttr {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(inet6AddrGen, nl.Uint8Attr(nl.IN6_ADDR_GEN_MODE_NONE))
	return spec
}
