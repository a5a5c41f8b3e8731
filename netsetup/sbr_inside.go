package netsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A fibRule is a rule of the policy routing, as far as it is of use here.
type fibRule struct {
	src      netip.Prefix // zero: any
	table    int
	priority int
	af       uint8
}

// rules lists the rules of both families.
func (c *rtnl) rules() (all []fibRule, err error) {
	for _, af := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := &nl.RtMsg{RtMsg: unix.RtMsg{Family: af}} // struct fib_rule_hdr has the same form
		msgs, err := c.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, h)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, m := range msgs {
			all = append(all, parseRule(m))
		}
	}
	return all, nil
}

func parseRule(b []byte) (r fibRule) {
	if len(b) < unix.SizeofRtMsg {
		return r
	}
	h := nl.DeserializeRtMsg(b)
	r.table, r.af = int(h.Table), h.Family
	attrs(b[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		switch kind {
		case nl.FRA_SRC:
			if a, ok := netip.AddrFromSlice(v); ok {
				r.src = netip.PrefixFrom(a, int(h.Src_len))
			}
		case nl.FRA_TABLE:
			r.table = int(uint32(u32(v)))
		case nl.FRA_PRIORITY:
			r.priority = u32(v)
		}
	})
	return r
}

// request is the one that makes or removes r. A priority of 0 is the kernel's choice:
// before the main table's, the newest first.
func (r fibRule) request() []nl.NetlinkRequestData {
	h := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(family(r.src.Addr())), Src_len: uint8(r.src.Bits()), Type: nl.FR_ACT_TO_TBL,
	}}
	data := []nl.NetlinkRequestData{h, nl.NewRtAttr(nl.FRA_SRC, r.src.Addr().AsSlice())}
	if r.table < 256 {
		h.Table = uint8(r.table)
	} else {
		data = append(data, nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(uint32(r.table))))
	}
	if r.priority != 0 {
		data = append(data, nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(r.priority))))
	}
	return data
}

// rule is that of s, but for its table.
func (s Source) rule() fibRule {
	return fibRule{src: netip.PrefixFrom(s.Address.Addr(), s.Address.Addr().BitLen())}
}

// routeBySource does what s says to the interface l. What was done before stays.
func (in *Inside) routeBySource(l link, s *SourceRouting) error {
	if s == nil {
		return nil
	}
	rules, err := in.c.rules()
	if err != nil {
		return err
	}
	if s.Table != 0 {
		for _, source := range s.Sources {
			if err := in.addSource(source, s.Table, rules); err != nil {
				return err
			}
		}
		return nil
	}
	routes, err := in.c.mainMessages(l.index)
	if err != nil {
		return err
	}
	moved := make([]bool, len(routes))
	table := firstTable
	for _, source := range s.Sources {
		if _, done := tableOf(source, rules); done {
			continue
		}
		for slices.ContainsFunc(rules, func(r fibRule) bool { return r.table == table }) {
			table++
		}
		if err := in.addSource(source, table, rules); err != nil {
			return err
		}
		if err := in.fillTable(l.index, source, table, routes, moved); err != nil {
			return err
		}
		table++
	}
	// Only now: two addresses of one subnet have the same routes.
	for i, raw := range routes {
		if !moved[i] {
			continue
		}
		for _, r := range routesAgain(raw, l.index, l.index, 0) {
			if err := in.c.change(unix.RTM_DELROUTE, 0, r.data...); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("take %s out of the main table: %w", r.name, err)
			}
		}
	}
	return nil
}

func (in *Inside) addSource(s Source, table int, rules []fibRule) error {
	if have, ok := tableOf(s, rules); ok && have == table {
		return nil
	}
	r := s.rule()
	r.table = table
	if err := in.c.change(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.request()...); existing(err) != nil {
		return fmt.Errorf("add rule from %s table %d: %w", s.Address.Addr(), table, err)
	}
	return nil
}

// tableOf returns the table that a rule gives to what comes from s.
func tableOf(s Source, rules []fibRule) (int, bool) {
	i := slices.IndexFunc(rules, func(r fibRule) bool { return r.src == s.rule().src })
	if i < 0 {
		return 0, false
	}
	return rules[i].table, true
}

// mainMessages lists the interface's routes of the main table, the kernel's own for its
// addresses included, as messages.
func (c *rtnl) mainMessages(index int) (all [][]byte, err error) {
	for _, af := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := &nl.RtMsg{RtMsg: unix.RtMsg{Family: af, Table: unix.RT_TABLE_MAIN}}
		msgs, err := c.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, h, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, m := range msgs {
			if r := parseRoutes(m)[0]; r.kind == unix.RTN_UNICAST && !linkLocalRoute(r) && r.index == index {
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// fillTable makes the table of s, and notes which of routes are in it.
func (in *Inside) fillTable(index int, s Source, table int, routes [][]byte, moved []bool) error {
	if s.Gateway.IsValid() {
		r := fibRoute{dst: defaultRoute(s.Gateway), via: s.Gateway, index: index, table: table}
		if err := existing(in.c.addRoute(r)); err != nil {
			return err
		}
	}
	var again []routeRequest
	for i, raw := range routes {
		r := parseRoutes(raw)[0]
		if !s.takes(r) {
			continue
		}
		moved[i] = true
		if !s.isDefault(r) {
			again = append(again, routesAgain(inTable(raw, table), index, index, 0)...)
		}
	}
	return in.addAgain(again, table)
}

// inTable is a copy of a route's message with another table.
func inTable(raw []byte, table int) []byte {
	raw = slices.Clone(raw)
	if len(raw) < unix.SizeofRtMsg {
		return raw
	}
	nl.DeserializeRtMsg(raw).Table = unix.RT_TABLE_UNSPEC // the attribute counts
	attrs(raw[unix.SizeofRtMsg:], func(kind uint16, v []byte) {
		if kind == unix.RTA_TABLE && len(v) >= 4 {
			nl.NativeEndian().PutUint32(v, uint32(table))
		}
	})
	return raw
}

// addAgain adds routes, those to gateways when the others are there.
func (in *Inside) addAgain(routes []routeRequest, table int) error {
	for {
		var failed []routeRequest
		var first error
		for _, r := range routes {
			if err := existing(in.c.change(unix.RTM_NEWROUTE, r.flags, r.data...)); err != nil {
				failed = append(failed, r)
				first = errors.Join(first, fmt.Errorf("add %s to table %d: %w", r.name, table, err))
			}
		}
		if len(failed) == 0 || len(failed) == len(routes) {
			return first
		}
		routes = failed
	}
}

// A routedBefore is what undoes sbr.
type routedBefore struct {
	NetNS uint64 `json:"netns"` // the namespace's inode
	SourceRouting
}

// undoSBR removes the rules. The tables' routes end with the interface.
func undoSBR(o Object) error {
	var was routedBefore
	if err := json.Unmarshal([]byte(o.Was), &was); err != nil {
		return fmt.Errorf("%s: %s: the rules of sbr: %w", o.Name, o.IfName, err)
	}
	return inRecorded(o, was.NetNS, func(in *Inside) error {
		rules, err := in.c.rules()
		if err != nil {
			return err
		}
		var faults []error
		for _, r := range rules {
			mine := slices.ContainsFunc(was.Sources, func(s Source) bool { return s.rule().src == r.src })
			if !mine || was.Table != 0 && r.table != was.Table {
				continue
			}
			if err := in.c.change(unix.RTM_DELRULE, 0, r.request()...); err != nil && !errors.Is(err, unix.ENOENT) {
				faults = append(faults, fmt.Errorf("remove rule from %s: %w", r.src.Addr(), err))
			}
		}
		return errors.Join(faults...)
	})
}

// Check returns every difference between the rules and tables and the kernel. The
// strategy's own check finds the routes that lie in them.
func (sbr) Check(ctx context.Context, _ *Host, target *NetNS, p Plan, conf any, a Attachment) ([]Difference, error) {
	s, ok := conf.(*SourceRouting)
	if err := ctx.Err(); err != nil || !ok {
		return nil, err
	}
	var c comparison
	err := target.Inside(func(in *Inside) error {
		return in.checkSBR(&c, a.IfName, s.of(p, a))
	})
	return c.found, err
}

func (in *Inside) checkSBR(c *comparison, ifName string, s *SourceRouting) error {
	l, err := in.c.linkByName(ifName)
	if errors.Is(err, unix.ENODEV) {
		c.differ(ifName, "an interface", "none")
		return nil
	}
	if err != nil {
		return err
	}
	rules, err := in.c.rules()
	if err != nil {
		return err
	}
	for _, source := range s.Sources {
		table, ok := tableOf(source, rules)
		object := "rule from " + source.Address.Addr().String()
		switch {
		case !ok:
			c.differ(object, "a table", "none")
		case s.Table != 0:
			c.differ(object, "table "+strconv.Itoa(s.Table), "table "+strconv.Itoa(table))
		case source.Gateway.IsValid():
			have, err := in.c.routes(l.index, table)
			if err != nil {
				return err
			}
			c.route(ifName, fibRoute{dst: defaultRoute(source.Gateway), via: source.Gateway, table: table}, have)
		}
	}
	return nil
}

// mainTables are those in which what a has in its main table lies: with sbr, in those
// of its sources as well.
func (in *Inside) mainTables(a Attachment) (tables []int, err error) {
	tables = []int{0}
	if a.VRF != nil {
		if l, err := in.c.linkByName(a.VRF.Name); err == nil {
			tables[0] = tableOfVRF(l) // else its own check tells
		}
	}
	if a.Sources == nil || a.Sources.Table != 0 {
		return tables, nil
	}
	rules, err := in.c.rules()
	for _, s := range a.Sources.Sources {
		if table, ok := tableOf(s, rules); ok {
			tables = append(tables, table)
		}
	}
	return tables, err
}

// routesOf lists the routes of an interface in a table, wherever the policies of a have
// put them.
func (in *Inside) routesOf(index, table int, a Attachment) (all []fibRoute, err error) {
	tables := []int{table}
	if table == 0 {
		if tables, err = in.mainTables(a); err != nil {
			return nil, err
		}
	}
	for _, t := range tables {
		have, err := in.c.routes(index, t)
		if err != nil {
			return nil, err
		}
		all = append(all, have...)
	}
	return all, nil
}
