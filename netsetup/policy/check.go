package policy

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/nsinit/nsinit/netsetup"
)

// Check returns what is missing for the masquerading of a: the table or its rules
// (someone flushed them), the container's addresses in it, forwarding. It reads the
// whole sets, and changes nothing.
func Check(_ context.Context, _ *netsetup.Host, a netsetup.Attachment, opt Options) ([]netsetup.Difference, error) {
	var spoof []netsetup.Difference
	if a.Port != nil && a.Port.SpoofCheck {
		var err error
		if spoof, err = checkSpoof(a); err != nil {
			return nil, fmt.Errorf("check: nftables: %w", noBridgeTable(err))
		}
	}
	if !a.Masquerade {
		return spoof, nil
	}
	l, err := linkOf(a)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	diffs, err := checkTable(l, a)
	if err != nil {
		return nil, fmt.Errorf("check: nftables: %w", explain(err))
	}
	diffs = append(spoof, diffs...)
	rt, err := openRoutes()
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	defer rt.Close()
	f := forwarding{hostLink: l, routes: rt, opt: opt}
	enough, err := f.enough()
	if err != nil {
		return nil, fmt.Errorf("check: forwarding: %w", err)
	}
	if !enough {
		diffs = append(diffs, netsetup.Difference{Object: "forwarding for " + l.device, Want: "on", Got: "off"})
	}
	return diffs, nil
}

func checkTable(l hostLink, a netsetup.Attachment) ([]netsetup.Difference, error) {
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	t := newTable()
	missing := func(object string) netsetup.Difference {
		return netsetup.Difference{Object: "table inet " + tableName, Want: object, Got: "none"}
	}
	if _, err := conn.ListTableOfFamily(tableName, t.Family); gone(err) {
		return []netsetup.Difference{missing("the table")}, nil
	}
	var diffs []netsetup.Difference
	for _, c := range t.chains(false) {
		rules, err := conn.GetRules(t.Table, c.Chain)
		if gone(err) || err == nil && len(rules) < len(c.rules) {
			diffs = append(diffs, missing("the rules of chain "+c.Name))
		} else if err != nil {
			return nil, err
		}
	}
	if len(a.Subnets) > 0 {
		there, err := holds(elementsFor(l.masquerade(a, "")...))
		if err != nil {
			return nil, err
		}
		if !there {
			diffs = append(diffs, missing("the network's subnets"))
		}
	} else {
		diffs = append(diffs, t.missingAddresses(conn, a, missing)...)
	}
	if !hasElement(conn, t.devices, nameKey(l.device)) {
		diffs = append(diffs, missing(l.device))
	}
	return diffs, nil
}

func (t table) missingAddresses(conn *nftables.Conn, a netsetup.Attachment, missing func(string) netsetup.Difference) (diffs []netsetup.Difference) {
	for _, name := range addressNames(a) {
		set, addr := t.containers6, netip.MustParseAddr(name)
		if addr.Is4() {
			set = t.containers4
		}
		if !hasElement(conn, set, addr.AsSlice()) {
			diffs = append(diffs, missing(name))
		}
	}
	return diffs
}

// hasElement reads the whole set.
func hasElement(conn *nftables.Conn, set *nftables.Set, key []byte) bool {
	elements, err := conn.GetSetElements(set)
	return err == nil && slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, key) })
}
