package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsinit/nsinit/netsetup/gate"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tap gives a container a device whose other end is a program that opens
// /dev/net/tun, as virtual machines do. Until one does, it has no carrier.
// Configuration and what it leaves in the kernel are those of the CNI plugin of
// the same name.
type tap struct{}

// A Tap says what a tap device was made with.
type Tap struct {
	Owner      *uint32 `json:"owner,omitzero"`      // who may attach to it; nil = root
	Group      *uint32 `json:"group,omitzero"`      // or which group
	MultiQueue bool    `json:"multiQueue,omitzero"` // several descriptors may be attached, a queue each
	Bridge     string  `json:"bridge,omitzero"`     // the bridge in the container that it is a port of; "" = none
}

// A tapConf has tap's own keys.
type tapConf struct {
	Tap
	mac string
}

func (own *tapConf) keys(c *confReader) []confKey {
	return []confKey{
		{"owner", c.id(&own.Owner)},
		{"group", c.id(&own.Group)},
		{"multiQueue", c.boolean(&own.MultiQueue)},
		{"bridge", c.parent(&own.Bridge)},
		{"mac", c.mac(&own.mac)},
		{"selinuxContext", func(path string, v *jsonValue) {
			// The kernel labels a tap as the thread that makes it (selinux_tun_dev_create), and a
			// program with several threads can't change its own label.
			if !v.asksNothing() {
				c.faultf(path, v.text, `takes another program with that label to make the device; let the real plugin do it: "nsinit": "exec"`)
			}
		}},
	}
}

const maxID = 1<<32 - 2 // (uid_t)-1 stands for none

// id reads the number of a user or a group.
func (c *confReader) id(to **uint32) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		n := -1
		if c.number(&n)(path, v); n > maxID {
			c.faultf(path, v.text, "out of range; 0 to %d", maxID)
		} else if n >= 0 {
			id := uint32(n)
			*to = &id
		}
	}
}

// Plan validates r without asking the kernel and returns all its faults at once.
func (tap) Plan(r Request) (Plan, error) {
	var own tapConf
	conf, err := confOf(r, func(c *confReader, _ *netConf) []confKey { return own.keys(c) })
	p, faults := planNet(r, conf)
	if p.MAC == "" {
		p.MAC = own.mac
	}
	p.NoLease, p.Own = true, own
	return p, errors.Join(err, faults, checkLink(p, conf, true))
}

// Attach makes the device in target.
func (tap) Attach(ctx context.Context, _ *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	own, _ := p.Own.(tapConf)
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	a.MTU, a.Tap = p.MTU, &own.Tap
	if err := target.Do(func() error { return makeTap(p, a) }); err != nil {
		return Attachment{}, err
	}
	return a, nil
}

// makeTap makes the device in the namespace of the calling thread: a tap can't be
// made by netlink, and belongs where /dev/net/tun was opened.
func makeTap(p Plan, a Attachment) error {
	c, err := openRTNL()
	if err != nil {
		return err
	}
	defer c.close()
	changes := []nl.NetlinkRequestData{ifinfo(0, 0, 0), nameAttr(a.IfName), macAttr(a.MAC)}
	if a.MTU != 0 {
		changes = append(changes, mtuAttr(a.MTU))
	}
	if a.Tap.Bridge != "" {
		br, err := c.linkByName(a.Tap.Bridge)
		if errors.Is(err, unix.ENODEV) {
			return faultf(p.key("bridge", "bridge"), a.Tap.Bridge, "no such device in the container, where a tap's bridge is; make it first: %w", unix.ENODEV)
		}
		if err != nil {
			return err
		}
		changes = append(changes, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.index))))
	}
	if err := openTap(a.IfName, a.Tap, func() error { return c.setLink(changes...) }); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	return nil
}

// openTap makes a tap and, once finish is happy, lets it outlive its descriptor.
func openTap(name string, t *Tap, finish func() error) error {
	fd, err := openRetry(unix.AT_FDCWD, "/dev/net/tun", unix.O_RDWR)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w; modprobe tun, or a kernel with CONFIG_TUN", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	// Exclusive: without, another tap of the name would be taken for ours.
	request.SetUint16(tapFlags(t) | unix.IFF_TUN_EXCL)
	gate.Change()
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("make: the container's network namespace has an interface of this name already; give another interface_name: %w", unix.EEXIST)
	case err != nil:
		return fmt.Errorf("make: %w", err)
	}
	for _, who := range []struct {
		what    string
		request uint
		id      *uint32
	}{{"owner", unix.TUNSETOWNER, t.Owner}, {"group", unix.TUNSETGROUP, t.Group}} {
		if who.id == nil {
			continue
		}
		if err := unix.IoctlSetInt(fd, who.request, int(*who.id)); err != nil {
			return fmt.Errorf("set %s %d: %w", who.what, *who.id, err)
		}
	}
	if err := finish(); err != nil {
		return fmt.Errorf("set MAC, MTU and bridge: %w", err)
	}
	gate.Change()
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make persistent: %w", err)
	}
	return nil
}

// tapFlags are the plugin's, which makes the device in another way if it gets an
// owner and a group. Whoever attaches says anew what it wants, but for the queues.
func tapFlags(t *Tap) (flags uint16) {
	flags = unix.IFF_TAP | unix.IFF_NO_PI
	if t.Owner != nil && t.Group != nil {
		flags |= unix.IFF_VNET_HDR
		if !t.MultiQueue {
			flags &^= unix.IFF_NO_PI
		}
	}
	if t.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	return flags
}

// Check returns every difference between a and the kernel.
func (tap) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkKind(target, a, "tun", func(c *comparison, l link) error {
		if a.Tap == nil {
			return nil
		}
		c.tap(a, l)
		if a.Tap.Bridge == "" {
			return nil
		}
		in, err := OpenInside()
		if err != nil {
			return err
		}
		defer in.Close()
		if br, err := in.c.linkByName(a.Tap.Bridge); err != nil || br.index != l.master {
			c.differ(a.IfName+": bridge", a.Tap.Bridge, "device "+strconv.Itoa(l.master))
		}
		return nil
	})
}

func (c *comparison) tap(a Attachment, l link) {
	owner, group, kind, queues := "none", "none", "tun", "one"
	attrs(l.data, func(attr uint16, v []byte) {
		switch attr {
		case nl.IFLA_TUN_OWNER:
			owner = strconv.FormatUint(uint64(uint32(u32(v))), 10)
		case nl.IFLA_TUN_GROUP:
			group = strconv.FormatUint(uint64(uint32(u32(v))), 10)
		case nl.IFLA_TUN_TYPE:
			if len(v) > 0 && v[0] == unix.IFF_TAP {
				kind = "tap"
			}
		case nl.IFLA_TUN_MULTI_QUEUE:
			if len(v) > 0 && v[0] != 0 {
				queues = "several"
			}
		}
	})
	wanted := "one"
	if a.Tap.MultiQueue {
		wanted = "several"
	}
	c.differ(a.IfName+": type", "tap", kind)
	c.differ(a.IfName+": owner", idWord(a.Tap.Owner), owner)
	c.differ(a.IfName+": group", idWord(a.Tap.Group), group)
	c.differ(a.IfName+": queues", wanted, queues)
}

func idWord(id *uint32) string {
	if id == nil {
		return "none"
	}
	return strconv.FormatUint(uint64(*id), 10)
}

// Configure finishes the interface from within the container's namespace.
func (tap) Configure(in *Inside, a Attachment) error {
	if a.quiet() {
		if err := in.c.setDevice("ipv4", a.IfName, "arp_notify", "1"); err != nil {
			return fmt.Errorf("%s: %w", a.IfName, err)
		}
	}
	return in.finish(a, 0)
}

// Commands returns what Attach and Configure do, in the words of iproute2.
func (tap) Commands(_ Plan, a Attachment) []Command {
	if a.Tap == nil {
		return nil
	}
	name := word(a.IfName)
	words := []string{"ip tuntap add mode tap name", name}
	for _, word := range []struct {
		yes  bool
		text string
	}{
		{a.Tap.MultiQueue, "multi_queue"},
		{a.Tap.Owner != nil, "user " + idWord(a.Tap.Owner)},
		{a.Tap.Group != nil, "group " + idWord(a.Tap.Group)},
		{tapFlags(a.Tap)&unix.IFF_VNET_HDR != 0, "vnet_hdr"},
		{tapFlags(a.Tap)&unix.IFF_NO_PI == 0, "pi"},
	} {
		if word.yes {
			words = append(words, word.text)
		}
	}
	set := "ip link set " + name + " address " + a.MAC + mtuWords(a.MTU)
	if a.Tap.Bridge != "" {
		set += " master " + word(a.Tap.Bridge)
	}
	return append([]Command{
		{Inside: true, Line: strings.Join(words, " ")}, {Inside: true, Line: set},
	}, announcedCommands(a, true, false)...)
}
