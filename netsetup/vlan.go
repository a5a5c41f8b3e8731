package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink/nl"
)

// vlan gives a container one VLAN (IEEE 802.1Q) of a network card of the host, as an
// untagged device with the card's MAC address. Configuration and what it leaves in
// the kernel are those of the CNI plugin of the same name.
type vlan struct{}

// A vlanConf has vlan's own keys.
type vlanConf struct {
	sublinkConf
	id int
}

func (own *vlanConf) keys(c *confReader) []confKey {
	return append(own.sublinkConf.keys(c), confKey{"vlanId", func(path string, v *jsonValue) {
		if c.number(&own.id)(path, v); own.id > maxVLAN {
			c.faultf(path, v.text, "no VLAN; 0 to %d", maxVLAN)
		}
	}})
}

// Plan validates r without asking the kernel and returns all its faults at once.
func (vlan) Plan(r Request) (Plan, error) {
	own := vlanConf{id: -1}
	conf, err := confOf(r, func(c *confReader, _ *netConf) []confKey { return own.keys(c) })
	p, faults := planNet(r, conf)
	if err == nil && own.master == "" {
		err = fmt.Errorf("%s: missing; the device that has the VLAN, as eth0", p.key("master", "parent"))
	}
	if err == nil && own.id < 0 {
		err = fmt.Errorf("%s: missing; the VLAN's number, 0 to %d", p.key("vlanId", "vlan"), maxVLAN)
	}
	p.Own = own
	return p, errors.Join(err, faults, checkLink(p, conf, false))
}

// Attach makes the device in target, on a parent on the host or in target.
func (vlan) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	own, _ := p.Own.(vlanConf)
	return h.attachSublink(ctx, target, p, own.sublinkConf, addrs, gateways, func(a *Attachment, side *Host, parent link) error {
		if !parent.up() && !own.inside { // vlan_dev_open
			return fmt.Errorf("%s: down, and as long as it is no VLAN of it can be up; ip link set %s up", parent.name, parent.name)
		}
		if a.MAC = p.MAC; a.MAC == "" {
			a.MAC = parent.mac.String()
		}
		a.Sublink = &Sublink{Parent: parent.name, Inside: own.inside, VLAN: own.id}
		info, data := kindAttr("vlan")
		data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(own.id)))
		return side.addSublink(target, p, *a, parent, info, macAttr(a.MAC))
	})
}

// Available looks for the parent.
func (vlan) Available(h *Host, p Plan) error {
	own, _ := p.Own.(vlanConf)
	return h.hasParent(p, own.sublinkConf)
}

// Check returns every difference between a and the kernel.
func (vlan) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkKind(target, a, "vlan", func(c *comparison, l link) error {
		if a.Sublink == nil {
			return nil
		}
		id := -1
		attrs(l.data, func(kind uint16, v []byte) {
			if kind == nl.IFLA_VLAN_ID && len(v) >= 2 {
				id = int(nl.NativeEndian().Uint16(v))
			}
		})
		c.differ(a.IfName+": VLAN", strconv.Itoa(a.Sublink.VLAN), strconv.Itoa(id))
		return h.checkParent(c, a, l)
	})
}

// Configure finishes the interface from within the container's namespace. The
// neighbours hear of its addresses when it comes up.
func (vlan) Configure(in *Inside, a Attachment) error { return in.finishAnnounced(a) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (vlan) Commands(p Plan, a Attachment) []Command {
	if a.Sublink == nil {
		return nil
	}
	words := addressWords(a.MAC) + "type vlan id " + strconv.Itoa(a.Sublink.VLAN)
	return append([]Command{sublinkCommand(p, a, words)}, announcedCommands(a, true, true)...)
}
