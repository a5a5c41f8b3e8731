package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What macvlan, ipvlan and vlan have in common: a device that stands on another
// one, its parent, and lives in another namespace than that.

// A Sublink says what a device was made with that stands on another one.
type Sublink struct {
	Parent string `json:"parent"`          // the device that it stands on
	Inside bool   `json:"inside,omitzero"` // the parent is in the container's namespace as well
	Mode   string `json:"mode,omitzero"`   // macvlan, ipvlan
	VLAN   int    `json:"vlan,omitzero"`   // vlan: the id
	Queue  int    `json:"queue,omitzero"`  // macvlan: length of the broadcast queue; 0 = the kernel's
}

// A sublinkConf has the keys that all three have.
type sublinkConf struct {
	master string // "" = the device of the default route
	inside bool   // master is in the container
}

func (own *sublinkConf) keys(c *confReader) []confKey {
	return []confKey{
		{"master", c.parent(&own.master)},
		{"linkInContainer", c.boolean(&own.inside)},
	}
}

// parent reads the name of a device that others can stand on.
func (c *confReader) parent(to *string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.text(to)(path, v)
		switch {
		case v.kind != '"' || v.text == "":
		case v.text == loopbackIfName:
			c.faultf(path, v.text, "the loopback device carries no other; a network card's name, as eth0")
		default:
			if err := CheckIfName(v.text); err != nil {
				c.faultf(path, v.text, "%w", err)
			}
		}
	}
}

// mode reads one of modes, the first of which is the default.
func (c *confReader) mode(to *string, modes []string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		for _, m := range modes {
			if v.text == m {
				*to = m
				return
			}
		}
		if v.text != "" {
			c.faultf(path, v.text, "unknown; one of %q%s", modes, didYouMean(v.text, modes))
		}
	}
}

// mac reads the address of an Ethernet device.
func (c *confReader) mac(to *string) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '"' {
			c.kind(path, v, "a string")
			return
		}
		if v.text == "" {
			return
		}
		mac, err := ParseMAC(v.text)
		if err != nil {
			c.faultf(path, v.text, "%w", err)
			return
		}
		*to = mac.String()
	}
}

// checkLink finds what none of the devices can have that the host doesn't forward
// for. bare says whether one without addresses makes sense.
func checkLink(p Plan, conf netConf, bare bool) error {
	var faults []error
	if conf.ipMasq {
		faults = append(faults, fmt.Errorf("%s: true: traffic of a %s doesn't pass the host; leave it out", p.key("ipMasq", "ipMasq"), p.Strategy))
	}
	if p.IPAM == "" && !bare {
		faults = append(faults, fmt.Errorf(
			`%s: missing; %s needs addresses, as {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]} or the flag's ip=10.1.0.2/24`,
			p.key("ipam", "ip"), p.Strategy))
	}
	return errors.Join(faults...)
}

// onParent calls f with the parent called name, "" for the device of the default
// route, and a Host whose socket is in the parent's namespace.
func (h *Host) onParent(target *NetNS, p Plan, own sublinkConf, f func(side *Host, parent link) error) error {
	there := "on the host"
	if own.inside {
		there = "in the container"
	}
	find := func(side *Host) error {
		parent, err := side.parent(own.master)
		switch {
		case errors.Is(err, errNoDefault):
			return fmt.Errorf("%s: missing, and there is no default route %s whose device could be taken; name the device", p.key("master", "parent"), there)
		case errors.Is(err, unix.ENODEV):
			return faultf(p.key("master", "parent"), own.master, "no such device %s; `ip link` lists those that there are: %w", there, unix.ENODEV)
		case err != nil:
			return err
		}
		return f(side, parent)
	}
	if !own.inside {
		return find(h)
	}
	return target.Do(func() error {
		c, err := openRTNL()
		if err != nil {
			return err
		}
		defer c.close()
		return find(&Host{Warn: h.Warn, c: c})
	})
}

// hasParent looks for a parent on the host. The container's, and that of a plugin before, only an Attach can find.
func (h *Host) hasParent(p Plan, own sublinkConf) error {
	if own.inside || own.master == "" && p.IPAM == "" {
		return nil
	}
	return h.onParent(nil, p, own, func(*Host, link) error { return nil })
}

var errNoDefault = errors.New("no default route")

func (h *Host) parent(name string) (link, error) {
	if name != "" {
		return h.c.linkByName(name)
	}
	up, err := h.Uplink()
	if err != nil {
		return link{}, err
	}
	if up.Index == 0 {
		return link{}, errNoDefault
	}
	return h.c.linkByIndex(up.Index)
}

// key is where a key of the configuration was or could have been written: in a file,
// or as a flag's option.
func (p *Plan) key(key, option string) string {
	switch {
	case p.Network == nil:
		return p.where() + ": " + option
	case p.Network.Source == p.Source && p.Source != "":
		return p.Source + ": " + option
	case p.Network.Source == "":
		return "network " + p.Network.Name + ": plugins[0]." + key
	}
	return p.Network.Source + ": plugins[0]." + key
}

// sublinkMTU checks the plan's MTU, 0 for the parent's, against the parent's, and
// puts it into a.
func (a *Attachment) sublinkMTU(p Plan, parent link) error {
	if a.MTU = p.MTU; a.MTU == 0 {
		a.MTU = parent.mtu
	}
	if a.MTU > parent.mtu {
		return faultf(p.key("mtu", "mtu"), strconv.Itoa(a.MTU), "more than the %d of %s; at most that, or raise it there", parent.mtu, parent.name)
	}
	if err := a.checkMTU(); err != nil {
		return fmt.Errorf("%s: %w", parent.name, err)
	}
	return nil
}

// kindAttr is the IFLA_LINKINFO of a kind of device, and where its data goes.
func kindAttr(kind string) (info, data *nl.RtAttr) {
	info = nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	return info, info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
}

// addInto makes a device in target under its final name, down, by one request on
// h's socket. errors.Is(err, unix.EEXIST) if target has the name already.
func (h *Host) addInto(target *NetNS, name string, attrs ...nl.NetlinkRequestData) error {
	into := append([]nl.NetlinkRequestData{
		nameAttr(name), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target.fd()))),
	}, attrs...)
	err := h.c.addLink(append([]nl.NetlinkRequestData{ifinfo(0, 0, 0)}, into...)...)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// 6.12 and older look for the name where the socket is, and a host has an eth0
	// more often than not. A request with an index of its own is looked up by that.
	return h.c.addLink(append([]nl.NetlinkRequestData{ifinfo(freeIndex(), 0, 0)}, into...)...)
}

// freeIndex makes up a device's index that no namespace has: the kernel counts from 1.
func freeIndex() int {
	var b [4]byte
	random(b[:])
	return 1<<30 | int(nl.NativeEndian().Uint32(b[:]))&(1<<30-1)
}

// addSublink makes a's device on parent. data goes with its kind.
func (h *Host) addSublink(target *NetNS, p Plan, a Attachment, parent link, info *nl.RtAttr, more ...nl.NetlinkRequestData) error {
	attrs := append([]nl.NetlinkRequestData{
		nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent.index))), info,
	}, more...)
	if p.MTU != 0 {
		attrs = append(attrs, mtuAttr(p.MTU))
	}
	err := h.addInto(target, a.IfName, attrs...)
	if err != nil {
		return explainSublink(target, p, a, parent, err)
	}
	if !parent.up() && !a.Sublink.Inside {
		h.Warn(fmt.Sprintf("%s: %s stands on %s, which is down: nothing passes until `ip link set %s up`", a.Network, a.IfName, parent.name, parent.name))
	}
	return nil
}

// explainSublink says what the kernel's number means here.
func explainSublink(target *NetNS, p Plan, a Attachment, parent link, err error) error {
	reason := ""
	switch {
	case errors.Is(err, unix.EEXIST) && (p.Strategy != "vlan" || target.has(a.IfName)):
		reason = "the container's network namespace has an interface of this name already; give another interface_name"
	case errors.Is(err, unix.EEXIST):
		reason = fmt.Sprintf("VLAN %d of %s is a device already, of this or another container, and can't be two; "+
			"put a bridge or macvlan on it to share it", a.Sublink.VLAN, parent.name)
	case errors.Is(err, unix.EOPNOTSUPP):
		reason = noKind(p.Strategy)
	case errors.Is(err, unix.EBUSY):
		reason = parent.name + " is a port of a bridge or bond, or carries devices of another kind; take another device"
	case errors.Is(err, unix.EINVAL):
		reason = fmt.Sprintf("%s takes no %s: one in mode passthru shares it with no other, and only Ethernet devices carry any", parent.name, p.Strategy)
	default:
		reason = "on " + parent.name
	}
	return fmt.Errorf("%s: make: %s: %w", a.IfName, reason, err)
}

// noKind names the kernel's option for a kind of device, which is its module's, too.
func noKind(kind string) string {
	option, module := "CONFIG_MACVLAN", kind
	switch kind {
	case "ipvlan":
		option = "CONFIG_IPVLAN"
	case "vlan":
		option, module = "CONFIG_VLAN_8021Q", "8021q"
	case "dummy":
		option = "CONFIG_DUMMY"
	}
	return fmt.Sprintf("the kernel has no %s devices; modprobe %s, or a kernel with %s", kind, module, option)
}

// has says whether n has a device called name.
func (n *NetNS) has(name string) bool {
	return n.Do(func() error {
		c, err := openRTNL()
		if err != nil {
			return err
		}
		defer c.close()
		_, err = c.linkByName(name)
		return err
	}) == nil
}

// attachSublink makes the attachment of a device that stands on another one; add makes
// the device on its parent, on the side that has that one.
func (h *Host) attachSublink(ctx context.Context, target *NetNS, p Plan, own sublinkConf, addrs []netip.Prefix, gateways []netip.Addr, add func(a *Attachment, side *Host, parent link) error) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	err = h.onParent(target, p, own, func(side *Host, parent link) error {
		if err := a.sublinkMTU(p, parent); err != nil {
			return err
		}
		return add(&a, side, parent)
	})
	if err != nil {
		return Attachment{}, err
	}
	return a, nil
}

// checkKind is checkBoth for a device that is inside alone: its kind, and what
// more compares of it.
func (h *Host) checkKind(target *NetNS, a Attachment, kind string, more func(c *comparison, l link) error) ([]Difference, error) {
	found, err := h.checkBoth(target, a, nil)
	if err != nil {
		return nil, err
	}
	var c comparison
	err = target.Inside(func(in *Inside) error {
		l, err := in.c.linkByName(a.IfName)
		if errors.Is(err, unix.ENODEV) {
			return nil // told by checkBoth
		}
		if err != nil {
			return err
		}
		c.differ(a.IfName+": kind", kind, l.kind)
		if l.kind != kind {
			return nil
		}
		return more(&c, l)
	})
	return append(found, c.found...), err
}

// checkParent compares what l stands on. On another macvlan, the kernel takes what
// that one stands on. The calling thread is in the container's namespace.
func (h *Host) checkParent(c *comparison, a Attachment, l link) error {
	side := h
	if a.Sublink.Inside {
		in, err := OpenInside()
		if err != nil {
			return err
		}
		defer in.Close()
		side = &Host{Warn: h.Warn, c: in.c}
	}
	parent, err := side.c.linkByName(a.Sublink.Parent)
	switch {
	case errors.Is(err, unix.ENODEV):
		c.differ(a.IfName+": parent", a.Sublink.Parent, "none")
	case err != nil:
		return err
	case parent.index != l.peer && parent.kind != l.kind:
		c.differ(a.IfName+": parent", a.Sublink.Parent, "device "+strconv.Itoa(l.peer))
	}
	return nil
}
