package policy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/nsinit/nsinit/netsetup"
)

// The tables without elements as `nft list table` prints them. A test makes them anew and
// compares.
var (
	//go:embed table.nft
	inetText string
	//go:embed table_bridge.nft
	bridgeText string
)

// makeCommand makes a table, or its rules anew where it is there: its sets and what is in
// them stay.
func makeCommand(family, text string) netsetup.Command {
	table := family + " " + tableName
	return netsetup.Command{Line: "nft -f - <<'END'\nadd table " + table + "\nflush table " + table + "\n" + text + "END"}
}

// Tables returns what makes the tables that commands need and that are not there, in the
// namespace of the calling thread.
func Tables(commands []netsetup.Command) (missing []netsetup.Command, err error) {
	for _, t := range []struct {
		family nftables.TableFamily
		word   string
		text   string
	}{{nftables.TableFamilyINet, "inet", inetText}, {nftables.TableFamilyBridge, "bridge", bridgeText}} {
		if !slices.ContainsFunc(commands, func(c netsetup.Command) bool { return strings.Contains(c.Line, " "+t.word+" "+tableName+" ") }) {
			continue
		}
		conn, err := connect()
		if err != nil {
			return nil, fmt.Errorf("nftables: %w", explain(err))
		}
		_, err = conn.ListTableOfFamily(tableName, t.family)
		switch {
		case gone(err) || unsupported(err):
			missing = append(missing, makeCommand(t.word, t.text))
		case err != nil:
			return nil, fmt.Errorf("nftables: %w", explain(err))
		}
	}
	return missing, nil
}

// Commands returns what Masquerade, Forward and SpoofCheck do for a that isn't done yet, in the
// words of nft(8) and sysctl(8), but for making the tables (Tables). a's device need not be there.
func Commands(a netsetup.Attachment, opt Options) ([]netsetup.Command, error) {
	var s script
	if a.Masquerade || a.Routed {
		l, err := linkOf(a)
		if err != nil {
			return nil, err
		}
		if err := s.link(l, a, opt); err != nil {
			return nil, err
		}
	}
	if a.Port != nil && a.Port.SpoofCheck {
		s.add("nft add element bridge %s allowed '{ %s . %s }'", tableName, quoteName(a.HostIf), a.MAC)
		s.add("nft add element bridge %s checked '{ %s }'", tableName, quoteName(a.HostIf))
	}
	return s, nil
}

// link is Masquerade or Forward.
func (s *script) link(l hostLink, a netsetup.Attachment, opt Options) error {
	if !a.Masquerade {
		if opt.NoForwarding || l.byHostsWill(opt) {
			return nil
		}
		s.element("ours", quoteName(l.device))
		s.element("routed", quoteName(l.device))
		return s.forwarding(l, opt)
	}
	if len(a.Subnets) > 0 {
		s.subnets(l, a)
		return s.forwarding(l, opt)
	}
	for _, p := range a.Addresses {
		set := "containers6"
		if p.Addr().Unmap().Is4() {
			set = "containers4"
		}
		s.element(set, p.Addr().Unmap().String())
	}
	s.element("ours", quoteName(l.device))
	return s.forwarding(l, opt)
}

// subnets are the network's own, unless another container has brought them.
func (s *script) subnets(l hostLink, a netsetup.Attachment) {
	if there, err := holds(elementsFor(l.masquerade(a, "")...)); err == nil && there {
		return
	}
	for _, p := range a.Subnets {
		set := "networks6"
		if p.Addr().Is4() {
			set = "networks4"
		}
		s.element(set, p.String()+" . "+quoteName(l.device))
	}
	s.element("ours", quoteName(l.device))
}

type script []netsetup.Command

func (s *script) add(format string, args ...any) {
	*s = append(*s, netsetup.Command{Line: fmt.Sprintf(format, args...)})
}

func (s *script) element(set, element string) {
	s.add("nft add element inet %s %s '{ %s }'", tableName, set, element)
}

func quoteName(device string) string { return `"` + device + `"` }

// forwarding is openForwarding.
func (s *script) forwarding(l hostLink, opt Options) error {
	rt, err := openRoutes()
	if err != nil {
		return err
	}
	defer rt.Close()
	f := forwarding{hostLink: l, routes: rt, opt: opt, looks: true}
	if enough, err := f.enough(); err != nil || enough {
		return err
	}
	if f.ledger, err = readLedger(opt.StateDir); err != nil {
		return err
	}
	f.handOver()
	before, all6 := slices.Clone(f.ledger.Opened), f.ledger.allIPv6()
	if err := f.plan(); err != nil {
		return err
	}
	for _, o := range f.ledger.Opened {
		if slices.Contains(before, o) {
			continue
		}
		s.element(fmt.Sprintf("opened%d", o.Family), quoteName(o.Device))
		if o.Bridge {
			s.element("same_port", quoteName(o.Device)+" . "+quoteName(o.Device))
		}
	}
	if f.ledger.allIPv6() && !all6 {
		s.add(`nft add rule inet %s forward meta nfproto ipv6 iifname != @opened6 meta iifkind '"bridge"' meta oifkind '"bridge"' counter return comment '"bridged, seen here by br_netfilter"'`, tableName)
		s.add("nft add rule inet %s forward meta nfproto ipv6 iifname != @opened6 jump opened", tableName)
	}
	for _, c := range slices.Concat(f.steps, f.passes) {
		if c.Sysctl == forwarding6("all") {
			s.add("%s", allIPv6Command)
			continue
		}
		s.add("sysctl -qw net/%s=%s", string(c.Sysctl), c.Now)
	}
	return nil
}

// allIPv6Command is switchAll6.
const allIPv6Command = "sh -c 'cd /proc/sys/net/ipv6/conf && off=$(grep -lx 0 */forwarding | grep -v ^all/); " +
	"echo 1 >all/forwarding && for f in $off; do echo 0 >$f; done'"
