package netsetup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A BridgePort is what a bridge's port has that most have not: the keys of the
// plugin's configuration that say how the bridge treats it.
type BridgePort struct {
	Hairpin     bool    `json:"hairpin,omitzero"`     // what came in by the port may leave by it
	Isolated    bool    `json:"isolated,omitzero"`    // it exchanges no frames with other isolated ports
	SpoofCheck  bool    `json:"spoofCheck,omitzero"`  // frames from inside with another source MAC address are dropped
	Down        bool    `json:"down,omitzero"`        // the container's end stays down
	VLAN        int     `json:"vlan,omitzero"`        // untagged frames are of this one; 0 = of the bridge's default one
	Trunk       []VLANs `json:"trunk,omitzero"`       // tagged frames of these pass, too
	KeepDefault bool    `json:"keepDefault,omitzero"` // the port stays in the bridge's default VLAN as well
	GatewayIf   string  `json:"gatewayIf,omitzero"`   // the host's device with the gateway's addresses, where that isn't the bridge
}

// VLANs are those from First to Last.
type VLANs struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// filtered says whether the port needs a bridge that keeps VLANs apart.
func (p BridgePort) filtered() bool { return p.VLAN != 0 || len(p.Trunk) > 0 }

// plain says whether the port has nothing of all that.
func (p BridgePort) plain() bool {
	return !p.Hairpin && !p.Isolated && !p.SpoofCheck && !p.Down && !p.filtered()
}

// leftDown says whether somebody inside decides when the interface comes up.
func (a Attachment) leftDown() bool { return a.Port != nil && a.Port.Down }

const maxVLAN = 4094

// vlan reads a VLAN's number from least on.
func (c *confReader) vlan(least int, to *int) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var n int
		before := len(c.faults)
		c.number(&n)(path, v)
		if len(c.faults) == before && (n < least || n > maxVLAN) {
			c.faultf(path, v.text, "out of range; %d to %d", least, maxVLAN)
			return
		}
		*to = n
	}
}

// vlans reads one member of vlanTrunk: a number, a range, or both.
func (c *confReader) vlans(to *[]VLANs) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var id int
		var r VLANs
		before := len(c.faults)
		c.object(path, v, []confKey{
			{"id", c.vlan(1, &id)}, {"minID", c.vlan(1, &r.First)}, {"maxID", c.vlan(1, &r.Last)},
		})
		switch {
		case len(c.faults) > before:
			return
		case (r.First == 0) != (r.Last == 0):
			c.faults = append(c.faults, fmt.Errorf("%s: %s: one of minID and maxID without the other; give both", c.where, path))
		case r.First > r.Last:
			c.faults = append(c.faults, fmt.Errorf("%s: %s: minID %d lies behind maxID %d; exchange them", c.where, path, r.First, r.Last))
		default:
			*to = append(*to, r, VLANs{id, id})
		}
	}
}

// merged returns the ranges in order, each VLAN once, and none of number 0.
func merged(ranges []VLANs) (all []VLANs) {
	ranges = slices.DeleteFunc(slices.Clone(ranges), func(r VLANs) bool { return r.First == 0 })
	slices.SortFunc(ranges, func(a, b VLANs) int { return a.First - b.First })
	for _, r := range ranges {
		if last := len(all) - 1; last >= 0 && r.First <= all[last].Last+1 {
			all[last].Last = max(all[last].Last, r.Last)
			continue
		}
		all = append(all, r)
	}
	return all
}

// A vlanEntry is one of the VLANs that a port is in.
type vlanEntry struct {
	VLANs
	pvid     bool // untagged frames that come in are of this one
	untagged bool // its frames leave without a tag
}

func (e vlanEntry) String() string {
	s := strconv.Itoa(e.First)
	if e.Last != e.First {
		s += "-" + strconv.Itoa(e.Last)
	}
	if e.pvid {
		s += " pvid"
	}
	if e.untagged {
		s += " untagged"
	}
	return s
}

// entries are what the port is put into, in order: a later one has the last word of
// a VLAN that is named twice, as with the CNI plugin. Its trunk without a VLAN has 1
// for what is untagged.
func (p BridgePort) entries() (all []vlanEntry) {
	if p.VLAN != 0 {
		all = append(all, vlanEntry{VLANs{p.VLAN, p.VLAN}, true, true})
	}
	for _, r := range p.Trunk {
		all = append(all, vlanEntry{VLANs: r})
	}
	if p.VLAN == 0 && len(p.Trunk) > 0 {
		all = append(all, vlanEntry{VLANs{1, 1}, true, true})
	}
	return all
}

// setVLANs puts the port into its VLANs. It may be done twice.
func (h *Host) setVLANs(br link, port int, p BridgePort) error {
	if !p.KeepDefault && br.defaultVLAN != 0 {
		out := vlanEntry{VLANs: VLANs{br.defaultVLAN, br.defaultVLAN}}
		err := h.c.change(unix.RTM_DELLINK, 0, vlanRequest(port, out)...)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("leave VLAN %d: %w", br.defaultVLAN, err)
		}
	}
	entries := p.entries()
	if err := h.c.change(unix.RTM_SETLINK, 0, vlanRequest(port, entries...)...); err != nil {
		return fmt.Errorf("join VLANs %v: %w", entries, err)
	}
	return nil
}

// vlanRequest is what `bridge vlan` sends, for several at once.
func vlanRequest(port int, entries ...vlanEntry) []nl.NetlinkRequestData {
	header := nl.NewIfInfomsg(unix.AF_BRIDGE)
	header.Index = int32(port)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(nl.IFLA_BRIDGE_FLAGS, nl.Uint16Attr(nl.BRIDGE_FLAGS_MASTER))
	add := func(flags uint16, e vlanEntry, vid int) {
		if e.pvid {
			flags |= nl.BRIDGE_VLAN_INFO_PVID
		}
		if e.untagged {
			flags |= nl.BRIDGE_VLAN_INFO_UNTAGGED
		}
		spec.AddRtAttr(nl.IFLA_BRIDGE_VLAN_INFO, append(nl.Uint16Attr(flags), nl.Uint16Attr(uint16(vid))...))
	}
	for _, e := range entries {
		if e.First == e.Last {
			add(0, e, e.First)
			continue
		}
		add(nl.BRIDGE_VLAN_INFO_RANGE_BEGIN, e, e.First)
		add(nl.BRIDGE_VLAN_INFO_RANGE_END, e, e.Last)
	}
	return []nl.NetlinkRequestData{header, spec}
}

// vlansOf lists the VLANs that a port is in. The kernel tells of all ports of the
// host: it is for Check only.
func (h *Host) vlansOf(port int) (all []vlanEntry, err error) {
	const compressed = 1 << 2 // RTEXT_FILTER_BRVLAN_COMPRESSED, 4.4
	msgs, err := h.c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_BRIDGE),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(compressed)))
	if err != nil {
		return nil, fmt.Errorf("list VLANs: %w", err)
	}
	for _, m := range msgs {
		if len(m) < unix.SizeofIfInfomsg || int(nl.DeserializeIfInfomsg(m).Index) != port {
			continue
		}
		attrs(m[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
			if kind == unix.IFLA_AF_SPEC {
				all = append(all, parseVLANs(v)...)
			}
		})
	}
	return all, nil
}

func parseVLANs(b []byte) (all []vlanEntry) {
	first := 0
	attrs(b, func(kind uint16, v []byte) {
		if kind != nl.IFLA_BRIDGE_VLAN_INFO || len(v) < 4 {
			return
		}
		flags, vid := u16(v), u16(v[2:])
		if flags&nl.BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
			first = vid
			return
		}
		e := vlanEntry{VLANs{vid, vid}, flags&nl.BRIDGE_VLAN_INFO_PVID != 0, flags&nl.BRIDGE_VLAN_INFO_UNTAGGED != 0}
		if flags&nl.BRIDGE_VLAN_INFO_RANGE_END != 0 {
			e.First = first
		}
		all = append(all, e)
	})
	return all
}

// checkPortOptions compares the port's own settings.
func (h *Host) checkPortOptions(c *comparison, a Attachment, end, br link) error {
	var want BridgePort
	if a.Port != nil {
		want = *a.Port
	}
	// A policy may have switched on what the bridge didn't: portmap hairpin mode, firewall isolation.
	if want.Hairpin {
		c.differ(a.HostIf+": hairpin", "on", onOff(end.hairpin))
	}
	if want.Isolated {
		c.differ(a.HostIf+": isolated", "on", onOff(end.isolated))
	}
	if !want.filtered() {
		return nil
	}
	c.differ(a.Bridge+": VLAN filtering", "on", onOff(br.filtering))
	have, err := h.vlansOf(end.index)
	if err != nil {
		return fmt.Errorf("%s: %w", a.HostIf, err)
	}
	c.differ(a.HostIf+": VLANs", vlanList(want.held(br.defaultVLAN)), vlanList(have))
	if want.GatewayIf == "" {
		return nil
	}
	if _, err := h.c.linkByName(want.GatewayIf); errors.Is(err, unix.ENODEV) {
		c.differ(want.GatewayIf, "the gateway's device", "none")
	} else if err != nil {
		return err
	}
	return nil
}

// held is what the kernel makes of the port's entries.
func (p BridgePort) held(defaultVLAN int) (all []vlanEntry) {
	flags := make(map[int]vlanEntry)
	if p.KeepDefault && defaultVLAN != 0 {
		flags[defaultVLAN] = vlanEntry{VLANs{defaultVLAN, defaultVLAN}, true, true}
	}
	for _, e := range p.entries() {
		for id := e.First; id <= e.Last; id++ {
			if e.pvid {
				for other, o := range flags { // there is one
					o.pvid = false
					flags[other] = o
				}
			}
			flags[id] = vlanEntry{VLANs{id, id}, e.pvid, e.untagged}
		}
	}
	for _, e := range flags {
		all = append(all, e)
	}
	return all
}

// vlanList puts entries into one form, whatever the ranges they come in.
func vlanList(entries []vlanEntry) string {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b vlanEntry) int { return a.First - b.First })
	var joined []vlanEntry
	for _, e := range entries {
		if last := len(joined) - 1; last >= 0 && !e.pvid && !joined[last].pvid &&
			e.untagged == joined[last].untagged && e.First == joined[last].Last+1 {
			joined[last].Last = e.Last
			continue
		}
		joined = append(joined, e)
	}
	var words []string
	for _, e := range joined {
		words = append(words, e.String())
	}
	return strings.Join(words, ", ")
}
