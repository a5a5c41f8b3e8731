package netsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vrf puts an interface into a virtual routing table of the container, as the CNI
// plugin of the same name: a device that is made when the first needs it. The
// interface's routes lie in that table.
type vrf struct{}

// VRFPolicy is CNI's vrf.
func VRFPolicy() Policy { return vrf{} }

// A VRF is what vrf does to an interface.
type VRF struct {
	Name  string `json:"name"`
	Table int    `json:"table,omitzero"` // 0: that of the device that is there, else the first that no such device has
}

// kindVRF is the kind of an Object that stands for an interface's place in a VRF, in
// the namespace whose path is Name.
const kindVRF = "vrf"

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (vrf) Plan(p Plan, plugin Plugin) (any, error) {
	var v VRF
	var c *confReader
	err := policyConf(p, plugin, func(reader *confReader) []confKey {
		c = reader
		return []confKey{{"vrfname", c.text(&v.Name)}, {"table", c.number(&v.Table)}}
	})
	if c == nil {
		return nil, err
	}
	place := p.placeOf(plugin)
	switch bad := CheckIfName(v.Name); {
	case v.Name == "" && len(c.faults) == 0:
		c.faults = append(c.faults, fmt.Errorf("%s: %s.vrfname: missing; the name of a device that is to be in the container, as red", c.where, place))
	case v.Name == "": // told
	case bad != nil:
		c.faultf(place+".vrfname", v.Name, "%w", bad)
	case v.Name == p.IfName:
		c.faultf(place+".vrfname", v.Name, "the interface itself is called so; another one")
	}
	if v.Table > maxTable {
		c.faultf(place+".table", strconv.Itoa(v.Table), "no routing table; 1 to %d", maxTable)
	}
	if p.Strategy == "loopback" || p.Strategy == "netns" {
		c.faults = append(c.faults, fmt.Errorf("%s: vrf: a network of type %s has no interface to put there; leave it out", c.where, p.Strategy))
	}
	return &v, errors.Join(c.faults...)
}

// Attach adds to a what Configure does inside, and records where that is: the namespace may
// live on when the interface is taken away.
func (vrf) Attach(ctx context.Context, _ *Host, target *NetNS, p Plan, conf any, a *Attachment, record Recorder) error {
	v, ok := conf.(*VRF)
	if err := ctx.Err(); err != nil || !ok {
		return err
	}
	a.VRF = v
	id, err := target.id()
	if err != nil {
		return err
	}
	text, err := json.Marshal(joinedVRF{NetNS: id, VRF: *v})
	if err != nil {
		return err
	}
	return record(Object{Kind: kindVRF, Network: a.Network, Name: target.f.Name(), Owner: p.Owner, IfName: a.IfName, Was: string(text)})
}

// A joinedVRF is what undoes vrf.
type joinedVRF struct {
	NetNS uint64 `json:"netns"` // the namespace's inode
	VRF
}

// Commands returns what Configure does, in the words of iproute2.
func (vrf) Commands(_ Plan, conf any, a Attachment) []Command {
	v, ok := conf.(*VRF)
	if !ok {
		return nil
	}
	name, ifName := word(v.Name), word(a.IfName)
	table := v.Table
	if table == 0 {
		table = 1
	}
	have := fmt.Sprintf("ip link show dev %s >/dev/null 2>&1 || ip link add %s up type vrf table %d", name, name, table)
	lines := []string{
		"sh -c " + word(have), // the first interface in it makes it
		"ip link set dev " + ifName + " master " + name,
	}
	for _, r := range mainRoutes(a) { // they went with the change
		if !r.kernel {
			lines = append(lines, r.command(a.IfName, "add")+" vrf "+name)
		}
	}
	var all []Command
	for _, line := range lines {
		all = append(all, Command{Inside: true, Line: line})
	}
	return all
}

// joinVRF puts the interface l into v, and returns its table; 0 without v. What the
// interface has already moves with it.
func (in *Inside) joinVRF(l link, v *VRF) (table int, err error) {
	if v == nil {
		return 0, nil
	}
	device, table, err := in.ensureVRF(v)
	switch {
	case err != nil:
		return 0, err
	case l.master == device.index:
		return table, nil
	case l.master != 0:
		return 0, fmt.Errorf("%s is in another device already, number %d; one of the two", l.name, l.master)
	}
	before, err := in.beforeVRF(l)
	if err != nil {
		return 0, err
	}
	if err := in.c.setLink(ifinfo(l.index, 0, 0), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(device.index)))); err != nil {
		return 0, fmt.Errorf("%s: put %s into it: %w", v.Name, l.name, err)
	}
	return table, in.afterVRF(l, before, table)
}

func tableOfVRF(l link) (table int) {
	attrs(l.data, func(kind uint16, v []byte) {
		if kind == nl.IFLA_VRF_TABLE {
			table = int(uint32(u32(v)))
		}
	})
	return table
}

// ensureVRF finds the device, or makes it.
func (in *Inside) ensureVRF(v *VRF) (device link, table int, err error) {
	device, err = in.c.linkByName(v.Name)
	if errors.Is(err, unix.ENODEV) {
		if err := in.makeVRF(v); err != nil {
			return device, 0, fmt.Errorf("%s: make: %w", v.Name, err)
		}
		device, err = in.c.linkByName(v.Name)
	}
	if err != nil {
		return device, 0, err
	}
	if device.kind != "vrf" {
		return device, 0, fmt.Errorf("%s: a device of type %q, not a vrf; give vrfname another name", v.Name, device.kind)
	}
	table = tableOfVRF(device)
	if v.Table != 0 && v.Table != table {
		return device, 0, fmt.Errorf("%s: is there, with table %d and not %d; leave table out, or name another one", v.Name, table, v.Table)
	}
	return device, table, nil
}

func (in *Inside) makeVRF(v *VRF) error {
	table := v.Table
	if table == 0 {
		var err error
		if table, err = in.freeVRFTable(); err != nil {
			return err
		}
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vrf"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VRF_TABLE, nl.Uint32Attr(uint32(table)))
	err := in.c.addLink(ifinfo(0, unix.IFF_UP, unix.IFF_UP), nameAttr(v.Name), info)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("this kernel has no devices of type vrf (CONFIG_NET_VRF); leave the plugin out: %w", err)
	}
	return err
}

// freeVRFTable returns the first table that no device of the type has.
func (in *Inside) freeVRFTable() (int, error) {
	links, err := in.c.linksOfKind("vrf")
	if err != nil {
		return 0, err
	}
	taken := make(map[int]bool)
	for _, l := range links {
		taken[tableOfVRF(l)] = true
	}
	table := 1
	for taken[table] {
		table++
	}
	return table, nil
}

func (c *rtnl) linksOfKind(kind string) (all []link, err error) {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	msgs, err := c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, ifinfo(0, 0, 0), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)), info)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("list devices of type %s: %w", kind, err)
	}
	for _, m := range msgs {
		if l := parseLink(m); l.kind == kind {
			all = append(all, l)
		}
	}
	return all, nil
}

// routesIn are routes with those of the main table in another one.
func routesIn(table int, routes []Route) []Route {
	if table == 0 {
		return routes
	}
	routes = slices.Clone(routes)
	for i := range routes {
		if routes[i].Table == 0 {
			routes[i].Table = table
		}
	}
	return routes
}

// A beforeVRF is what an interface has that the kernel takes away when it gets a master:
// it goes down and up again.
type beforeVRF struct {
	addrs  [][]byte // of IPv6
	routes [][]byte
}

func (in *Inside) beforeVRF(l link) (b beforeVRF, err error) {
	if !l.up() {
		return b, nil // it has none
	}
	addrs, err := in.c.addrMessages(l.index)
	if err != nil {
		return b, fmt.Errorf("%s: list addresses: %w", l.name, err)
	}
	for _, m := range addrs {
		if a, _ := parseAddr(m); a.prefix.Addr().Is6() && !a.linkLocal() {
			b.addrs = append(b.addrs, m)
		}
	}
	routes, err := in.c.mainMessages(l.index)
	for _, m := range routes {
		if nl.DeserializeRtMsg(m).Protocol != unix.RTPROT_KERNEL {
			b.routes = append(b.routes, m)
		}
	}
	return b, err
}

// afterVRF gives it back.
func (in *Inside) afterVRF(l link, b beforeVRF, table int) error {
	waits := false
	for _, m := range backwardIPv6(b.addrs) {
		again := revival{index: l.index, then: l.name, now: l.name}.address(m)
		err := in.c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, again...)
		if existing(err) != nil {
			return fmt.Errorf("%s: address %s: add again: %w", l.name, addrName(m), err)
		}
		a, _ := parseAddr(m)
		waits = waits || a.flags&unix.IFA_F_NODAD == 0
	}
	if waits {
		if err := in.awaitDAD(l.index); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	var again []routeRequest
	for _, m := range b.routes {
		again = append(again, routesAgain(inTable(m, table), l.index, l.index, 0)...)
	}
	return in.addAgain(again, table)
}

// undoVRF takes the interface out of the device, and removes that when it was the last.
func undoVRF(o Object) error {
	var was joinedVRF
	if err := json.Unmarshal([]byte(o.Was), &was); err != nil {
		return fmt.Errorf("%s: %s: its vrf: %w", o.Name, o.IfName, err)
	}
	return inRecorded(o, was.NetNS, func(in *Inside) error {
		device, err := in.c.linkByName(was.VRF.Name)
		if errors.Is(err, unix.ENODEV) || err == nil && device.kind != "vrf" {
			return nil
		}
		if err != nil {
			return err
		}
		l, err := in.c.linkByName(o.IfName)
		if err == nil && l.master == device.index {
			err = in.c.setLink(ifinfo(l.index, 0, 0), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("take it out of %s: %w", was.VRF.Name, err)
		}
		ports, err := in.c.ports(device.index)
		if err != nil || len(ports) > 0 {
			return err
		}
		return in.c.delLink(device.index)
	})
}

// Check returns every difference between the VRF and the kernel.
func (vrf) Check(ctx context.Context, _ *Host, target *NetNS, _ Plan, conf any, a Attachment) ([]Difference, error) {
	v, ok := conf.(*VRF)
	if err := ctx.Err(); err != nil || !ok {
		return nil, err
	}
	var c comparison
	err := target.Inside(func(in *Inside) error {
		return in.checkVRF(&c, a.IfName, v)
	})
	return c.found, err
}

func (in *Inside) checkVRF(c *comparison, ifName string, v *VRF) error {
	device, err := in.c.linkByName(v.Name)
	if errors.Is(err, unix.ENODEV) {
		c.differ(v.Name, "a vrf", "none")
		return nil
	}
	if err != nil {
		return err
	}
	c.differ(v.Name, "a vrf", "a "+device.kind)
	c.differ(v.Name+": state", "up", state(device))
	if v.Table != 0 {
		c.differ(v.Name+": table", strconv.Itoa(v.Table), strconv.Itoa(tableOfVRF(device)))
	}
	l, err := in.c.linkByName(ifName)
	if errors.Is(err, unix.ENODEV) {
		c.differ(ifName, "an interface", "none")
		return nil
	}
	if err != nil {
		return err
	}
	master := "none"
	if l.master != 0 {
		m, err := in.c.linkByIndex(l.master)
		if err != nil {
			return err
		}
		master = m.name
	}
	c.differ(ifName+": vrf", v.Name, master)
	return nil
}
