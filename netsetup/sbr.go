package netsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// sbr routes by source, as the CNI plugin of the same name: what has an address of
// the interface as its source leaves by the interface, whatever the main table
// says. Each address has a rule, and a table of its own with the interface's routes,
// which leave the main table.
type sbr struct{}

// SBRPolicy is CNI's sbr.
func SBRPolicy() Policy { return sbr{} }

// A SourceRouting is what sbr does on an interface.
type SourceRouting struct {
	Table   int      `json:"table,omitzero"` // of all addresses, which somebody else fills; 0: one for each
	Sources []Source `json:"sources"`
}

// A Source is an address that has its own table.
type Source struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway,omitzero"` // of the table's default route; zero: none
}

// firstTable is the number from which tables are looked for that no rule names.
const firstTable = 100

// kindSBR is the kind of an Object that stands for the rules of an interface's
// addresses in the namespace whose path is Name.
const kindSBR = "sbr"

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (sbr) Plan(p Plan, plugin Plugin) (any, error) {
	var table *int
	err := policyConf(p, plugin, func(c *confReader) []confKey {
		return []confKey{{"table", c.table(&table)}}
	})
	if p.Strategy == "loopback" || p.Strategy == "netns" {
		err = errors.Join(err, fmt.Errorf("%s: sbr: a network of type %s has no addresses to route by; leave it out", p.where(), p.Strategy))
	}
	s := &SourceRouting{}
	if table != nil {
		s.Table = *table
	}
	return s, err
}

const maxTable = 1<<32 - 1

// table reads the number of a routing table.
func (c *confReader) table(to **int) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		before := len(c.faults)
		optional(c.number, to)(path, v)
		if len(c.faults) == before && (**to < 1 || **to > maxTable) {
			c.faultf(path, v.text, "no routing table; 1 to %d", maxTable)
		}
	}
}

// Attach adds to a what Configure does inside, and records that there are rules to remove:
// the namespace may live on when the interface is taken away.
func (sbr) Attach(ctx context.Context, _ *Host, target *NetNS, p Plan, conf any, a *Attachment, record Recorder) error {
	s, ok := conf.(*SourceRouting)
	if err := ctx.Err(); err != nil || !ok {
		return err
	}
	if len(a.Addresses) == 0 {
		return fmt.Errorf("%s: no address to route by; give the network an ipam, or leave sbr out", a.IfName)
	}
	mine := s.of(p, *a)
	a.Sources = mine
	id, err := target.id()
	if err != nil {
		return err
	}
	text, err := json.Marshal(routedBefore{NetNS: id, SourceRouting: *mine})
	if err != nil {
		return err
	}
	return record(Object{Kind: kindSBR, Network: a.Network, Name: target.f.Name(), Owner: p.Owner, IfName: a.IfName, Was: string(text)})
}

func (s *SourceRouting) of(p Plan, a Attachment) *SourceRouting {
	mine := &SourceRouting{Table: s.Table}
	for _, address := range a.Addresses {
		source := Source{Address: address, Gateway: p.subnetGateway(address)}
		if !source.Gateway.IsValid() {
			i := slices.IndexFunc(a.Gateways, address.Contains)
			if i >= 0 {
				source.Gateway = a.Gateways[i]
			}
		}
		mine.Sources = append(mine.Sources, source)
	}
	return mine
}

// takes says whether r is for what has s as its source: it says so, its gateway is in
// the same subnet, or it leads to the link whoever asks.
func (s Source) takes(r fibRoute) bool {
	switch {
	case r.dst.Addr().Is4() != s.Address.Addr().Is4():
		return false
	case linkLocalRoute(r):
		return false
	case r.via.Is6() && r.via.IsLinkLocalUnicast():
		return true
	}
	return r.src.IsValid() && s.Address.Contains(r.src) || r.via.IsValid() && s.Address.Contains(r.via) || !r.src.IsValid() && !r.via.IsValid()
}

// linkLocalRoute says whether r is the kernel's to link-local addresses. It stays in
// the main table: a link-local source has no rule of its own.
func linkLocalRoute(r fibRoute) bool {
	return r.dst.Addr().Is6() && r.dst.Addr().IsLinkLocalUnicast()
}

// isDefault says whether r is the default route that the table of s has anyway.
func (s Source) isDefault(r fibRoute) bool { return r.dst.Bits() == 0 && r.via == s.Gateway }

// Commands returns what Configure does, in the words of iproute2. The tables are those
// of the container's first network.
func (sbr) Commands(p Plan, conf any, a Attachment) []Command {
	s, ok := conf.(*SourceRouting)
	if !ok {
		return nil
	}
	var all []Command
	add := func(line string) { all = append(all, Command{Inside: true, Line: line}) }
	var moved []mainRoute
	for i, source := range s.of(p, a).Sources {
		table := s.Table
		if table == 0 {
			table = firstTable + i
		}
		add(ruleCommand(source, table))
		if s.Table != 0 {
			continue
		}
		if gw := source.Gateway; gw.IsValid() {
			add(routeCommand(a.IfName, "add", fibRoute{dst: defaultRoute(gw), via: gw, table: table}))
		}
		for _, r := range mainRoutes(a) {
			if !source.takes(r.fibRoute) {
				continue
			}
			if !slices.Contains(moved, r) {
				moved = append(moved, r)
			}
			if !source.isDefault(r.fibRoute) {
				r.table = table
				add(r.command(a.IfName, "add"))
			}
		}
	}
	for _, r := range moved {
		add(r.command(a.IfName, "del"))
	}
	return all
}

func ruleCommand(s Source, table int) string {
	program := "ip"
	if s.Address.Addr().Is6() {
		program = "ip -6"
	}
	return fmt.Sprintf("%s rule add from %s table %d", program, s.Address.Addr(), table)
}

// A mainRoute is a route of the main table that an attachment makes.
type mainRoute struct {
	fibRoute
	kernel bool // by an address
}

// mainRoutes are those that Configure leaves, the kernel's own for addresses included.
func mainRoutes(a Attachment) (all []mainRoute) {
	for i, p := range a.Addresses {
		same := func(q netip.Prefix) bool { return q.Masked() == p.Masked() }
		if a.Strategy == "ptp" || p.Bits() == 32 && p.Addr().Is4() || slices.ContainsFunc(a.Addresses[:i], same) {
			continue
		}
		r := mainRoute{kernel: true, fibRoute: fibRoute{dst: p.Masked(), metric: 256}}
		if p.Addr().Is4() {
			r.src, r.scope, r.metric = p.Addr(), unix.RT_SCOPE_LINK, 0
		}
		all = append(all, r)
	}
	for _, r := range a.Routes {
		if !r.Gateway.IsValid() && r.Table == 0 {
			all = append(all, mainRoute{fibRoute: inner(0, r, a)})
		}
	}
	for _, gw := range a.Gateways {
		all = append(all, mainRoute{fibRoute: fibRoute{dst: defaultRoute(gw), via: gw}})
	}
	for _, r := range a.Routes {
		if r.Gateway.IsValid() && r.Table == 0 {
			all = append(all, mainRoute{fibRoute: inner(0, r, a)})
		}
	}
	return all
}

// command is routeCommand with what else tells r from others.
func (r mainRoute) command(ifName, verb string) string {
	line := routeCommand(ifName, verb, r.fibRoute)
	if r.kernel {
		line += " proto kernel"
	}
	return line
}
