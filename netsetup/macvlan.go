package netsetup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// macvlan gives a container a device of its own on a network card of the host,
// with a MAC address of its own: it is a neighbour on that network, and the host
// itself can't reach it. Configuration and what it leaves in the kernel are those
// of the CNI plugin of the same name.
type macvlan struct{}

// A macvlanConf has macvlan's own keys.
type macvlanConf struct {
	sublinkConf
	mode  string
	queue int // length of the queue for broadcasts; 0 = the kernel's
	mac   string
}

const maxQueue = 1<<32 - 1

func (own *macvlanConf) keys(c *confReader) []confKey {
	return append(own.sublinkConf.keys(c),
		confKey{"mode", c.mode(&own.mode, macvlanModes())},
		confKey{"bcqueuelen", func(path string, v *jsonValue) {
			if c.number(&own.queue)(path, v); own.queue > maxQueue {
				c.faultf(path, v.text, "too long; 0 to %d, 0 for the kernel's 1000", maxQueue)
			}
		}},
		confKey{"mac", c.mac(&own.mac)})
}

const modePassthru = "passthru"

// macvlanModes are the words of the modes, the default first.
func macvlanModes() []string { return []string{"bridge", "private", "vepa", modePassthru} }

// macvlanMode returns the kernel's number of a mode (enum macvlan_mode).
func macvlanMode(mode string) uint32 {
	switch mode {
	case "private":
		return 1
	case "vepa":
		return 2
	case modePassthru:
		return 8
	}
	return 4
}

// Plan validates r without asking the kernel and returns all its faults at once.
func (macvlan) Plan(r Request) (Plan, error) {
	own := macvlanConf{mode: macvlanModes()[0]}
	conf, err := confOf(r, func(c *confReader, _ *netConf) []confKey { return own.keys(c) })
	p, faults := planNet(r, conf)
	if p.MAC == "" {
		p.MAC = own.mac
	}
	if own.mode == modePassthru && p.MAC != "" {
		err = errors.Join(err, faultf(p.key("mac", "mac"), p.MAC, "in mode passthru the parent's address is the interface's; leave it out"))
	}
	p.Own = own
	return p, errors.Join(err, faults, checkLink(p, conf, true))
}

// Attach makes the device in target, on a parent on the host or in target.
func (macvlan) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	own, _ := p.Own.(macvlanConf)
	return h.attachSublink(ctx, target, p, own.sublinkConf, addrs, gateways, func(a *Attachment, side *Host, parent link) error {
		a.Sublink = &Sublink{Parent: parent.name, Inside: own.inside, Mode: own.mode, Queue: own.queue}
		info, data := kindAttr("macvlan")
		data.AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(macvlanMode(own.mode)))
		if own.queue > 0 {
			data.AddRtAttr(nl.IFLA_MACVLAN_BC_QUEUE_LEN, nl.Uint32Attr(uint32(own.queue)))
		}
		if own.mode == modePassthru { // to change one address is to change both
			a.MAC = parent.mac.String()
			return side.addSublink(target, p, *a, parent, info)
		}
		return side.addSublink(target, p, *a, parent, info, macAttr(a.MAC))
	})
}

// macAttr is a MAC address that has been checked.
func macAttr(s string) *nl.RtAttr {
	mac, _ := net.ParseMAC(s)
	return nl.NewRtAttr(unix.IFLA_ADDRESS, mac)
}

// Available looks for the parent.
func (macvlan) Available(h *Host, p Plan) error {
	own, _ := p.Own.(macvlanConf)
	return h.hasParent(p, own.sublinkConf)
}

// Check returns every difference between a and the kernel.
func (macvlan) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkKind(target, a, "macvlan", func(c *comparison, l link) error {
		if a.Sublink == nil {
			return nil
		}
		mode := ""
		attrs(l.data, func(kind uint16, v []byte) {
			if kind == nl.IFLA_MACVLAN_MODE {
				mode = macvlanWord(u32(v))
			}
		})
		c.differ(a.IfName+": mode", a.Sublink.Mode, mode)
		return h.checkParent(c, a, l)
	})
}

func macvlanWord(mode int) string {
	for _, word := range macvlanModes() {
		if macvlanMode(word) == uint32(mode) {
			return word
		}
	}
	return strconv.Itoa(mode)
}

// Configure finishes the interface from within the container's namespace. The
// neighbours, other machines among them, hear of its addresses when it comes up.
func (macvlan) Configure(in *Inside, a Attachment) error { return in.finishAnnounced(a) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (macvlan) Commands(p Plan, a Attachment) []Command {
	if a.Sublink == nil {
		return nil
	}
	words := "type macvlan mode " + a.Sublink.Mode
	if a.Sublink.Queue > 0 {
		words += " bcqueuelen " + strconv.Itoa(a.Sublink.Queue)
	}
	if a.Sublink.Mode != modePassthru {
		words = addressWords(a.MAC) + words
	}
	return append([]Command{sublinkCommand(p, a, words)}, announcedCommands(a, true, true)...)
}
