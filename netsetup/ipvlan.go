package netsetup

import (
	"context"
	"errors"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
)

// ipvlan gives a container a device of its own on a network card of the host, with
// the card's MAC address: for networks that allow one address a port. Configuration
// and what it leaves in the kernel are those of the CNI plugin of the same name.
type ipvlan struct{}

// An ipvlanConf has ipvlan's own keys.
type ipvlanConf struct {
	sublinkConf
	mode string
}

// ipvlanModes are the words of the modes, the default first; each one's place is the
// kernel's number (enum ipvlan_mode).
func ipvlanModes() []string { return []string{"l2", "l3", "l3s"} }

func ipvlanMode(mode string) uint16 {
	for i, word := range ipvlanModes() {
		if word == mode {
			return uint16(i)
		}
	}
	return 0
}

func (own *ipvlanConf) keys(c *confReader) []confKey {
	return append(own.sublinkConf.keys(c), confKey{"mode", c.mode(&own.mode, ipvlanModes())})
}

// Plan validates r without asking the kernel and returns all its faults at once.
func (ipvlan) Plan(r Request) (Plan, error) {
	own := ipvlanConf{mode: ipvlanModes()[0]}
	conf, err := confOf(r, func(c *confReader, _ *netConf) []confKey { return own.keys(c) })
	given := conf.ipam.kind != ""
	if before, ok := previousOf(r); ok && err == nil {
		err = before.take(&r, &conf, &own.sublinkConf)
	}
	p, faults := planNet(r, conf)
	p.NoLease = !given && p.IPAM != "" // the plugin before has leased them
	if p.MAC != "" {
		faults = errors.Join(faults, faultf(p.key("mac", "mac"), p.MAC, "an ipvlan has its parent's address; leave it out"))
	}
	p.Own = own
	return p, errors.Join(err, faults, checkLink(p, conf, r.Unasked))
}

// Attach makes the device in target, on a parent on the host or in target.
func (ipvlan) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	own, _ := p.Own.(ipvlanConf)
	return h.attachSublink(ctx, target, p, own.sublinkConf, addrs, gateways, func(a *Attachment, side *Host, parent link) error {
		a.MAC = parent.mac.String()
		a.Sublink = &Sublink{Parent: parent.name, Inside: own.inside, Mode: own.mode}
		info, data := kindAttr("ipvlan")
		data.AddRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(ipvlanMode(own.mode)))
		return side.addSublink(target, p, *a, parent, info)
	})
}

// Available looks for the parent.
func (ipvlan) Available(h *Host, p Plan) error {
	own, _ := p.Own.(ipvlanConf)
	return h.hasParent(p, own.sublinkConf)
}

// Check returns every difference between a and the kernel.
func (ipvlan) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkKind(target, a, "ipvlan", func(c *comparison, l link) error {
		if a.Sublink == nil {
			return nil
		}
		mode := ""
		attrs(l.data, func(kind uint16, v []byte) {
			if kind == nl.IFLA_IPVLAN_MODE && len(v) >= 2 {
				mode = ipvlanWord(nl.NativeEndian().Uint16(v))
			}
		})
		c.differ(a.IfName+": mode", a.Sublink.Mode, mode)
		return h.checkParent(c, a, l)
	})
}

func ipvlanWord(mode uint16) string {
	if words := ipvlanModes(); int(mode) < len(words) {
		return words[mode]
	}
	return strconv.Itoa(int(mode))
}

// Configure finishes the interface from within the container's namespace. The
// neighbours hear of its addresses when it comes up: whoever had them before had
// another MAC address, unless it was on the same parent.
func (ipvlan) Configure(in *Inside, a Attachment) error { return in.finishAnnounced(a) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (ipvlan) Commands(p Plan, a Attachment) []Command {
	if a.Sublink == nil {
		return nil
	}
	return append([]Command{sublinkCommand(p, a, "type ipvlan mode "+a.Sublink.Mode)}, announcedCommands(a, true, true)...)
}
