package policy

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// tableText is the table without elements as `nft list table` prints it. A test makes it
// anew and compares.
//
//go:embed table.nft
var tableText string

// TableCommand makes the table, or its rules anew where it is there: its sets and what is
// in them stay.
func TableCommand() netsetup.Command {
	line := "nft -f - <<'END'\nadd table inet " + tableName + "\nflush table inet " + tableName + "\n" + tableText + "END"
	return netsetup.Command{Line: line}
}

// HasTable tells whether the table is there, in the namespace of the calling thread.
func HasTable() (bool, error) {
	conn, err := connect()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", explain(err))
	}
	t := newTable()
	_, err = conn.ListTableOfFamily(tableName, t.Family)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("nftables: %w", explain(err))
	}
	return true, nil
}

// Commands returns what Masquerade does for a that it hasn't done yet, in the words of nft(8)
// and sysctl(8), but for making the table (TableCommand). a's device need not be there.
func Commands(a netsetup.Attachment, opt Options) ([]netsetup.Command, error) {
	l, err := linkOf(a)
	if err != nil {
		return nil, fmt.Errorf("masquerade: %w", err)
	}
	var s script
	for _, p := range a.Addresses {
		set := "containers6"
		if p.Addr().Unmap().Is4() {
			set = "containers4"
		}
		s.element(set, p.Addr().Unmap().String())
	}
	s.element("ours", quoteName(l.device))
	err = s.forwarding(l, opt)
	return s, err
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
		s.add(`nft add rule inet %s forward meta nfproto ipv6 iifname != @opened6 meta iifkind '"bridge"' meta oifkind '"bridge"' return comment '"bridged, seen here by br_netfilter"'`, tableName)
		s.add("nft add rule inet %s forward meta nfproto ipv6 iifname != @opened6 jump opened", tableName)
	}
	return s.sysctls(slices.Concat(f.steps, f.passes))
}

func (s *script) sysctls(changes []change) error {
	set := func(name sysctl, value string) {
		s.add("sysctl -qw %s=%s", "net/"+string(name), value)
	}
	for _, c := range changes {
		if c.Sysctl != forwarding6("all") {
			set(c.Sysctl, c.Now)
			continue
		}
		hosts, err := devicesThatAre("0")
		if err != nil {
			return err
		}
		set(c.Sysctl, c.Now)
		for _, name := range hosts {
			set(forwarding6(name), "0")
		}
	}
	return nil
}

// trimTable is text as nft lists the table, without elements.
func trimTable(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		inside = inside || strings.HasPrefix(strings.TrimSpace(line), "elements = {")
		if !inside {
			b.WriteString(line)
		}
		inside = inside && !strings.HasSuffix(strings.TrimSpace(line), "}")
	}
	return b.String()
}
