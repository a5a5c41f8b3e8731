package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/nsinit/nsinit/netsetup"
)

// A Conflict is something of another owner that drops, or may drop, what containers
// send. nsinit doesn't change it.
type Conflict struct {
	Family string // ip, ip6 or inet
	Table  string
	Chain  string
	Hook   string // forward: to the outside; input: to the host itself
	Why    string // what it does: "policy drop", "ends in drop", "ends in reject", "can't be read"
	Remedy string // what the host's owner can do, with DEVICE for the network's device
	// Named holds the devices that rules of the table name: for those the owner has
	// most likely done something already.
	Named []string
}

// For says it in one line for a network's device.
func (c Conflict) For(device string) string {
	return fmt.Sprintf("table %s %s, chain %s (%s, %s) may drop what containers on %s send: %s",
		c.Family, c.Table, c.Chain, c.Hook, c.Why, device, strings.ReplaceAll(c.Remedy, "DEVICE", device))
}

// Foreign returns what tables of others hold against containers, in the namespace of
// the calling thread. It reads all their chains: milliseconds on a host with many
// rules, so it is for when a network is first made, and for a person who asks. An
// accept in nsinit's table can't help against a drop in another (nft(8), chains).
func Foreign(ctx context.Context, _ *netsetup.Host) ([]Conflict, error) {
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: read chains: %w", explain(err))
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("nftables: read chains: %w", explain(err))
	}
	var all []Conflict
	for _, c := range chains {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !judges(c) {
			continue
		}
		conflict, err := readForeign(conn, c, chains)
		switch {
		case gone(err): // taken away meanwhile
		case err != nil:
			return nil, fmt.Errorf("nftables: read table %s: %w", c.Table.Name, explain(err))
		case conflict.Why != "":
			all = append(all, conflict)
		}
	}
	return append(all, legacy()...), nil
}

// judges tells whether c is a base chain that containers' packets pass.
func judges(c *nftables.Chain) bool {
	ours := c.Table.Family == nftables.TableFamilyINet && c.Table.Name == tableName
	return !ours && c.Hooknum != nil && c.Type == nftables.ChainTypeFilter && familyName(c.Table.Family) != "" &&
		(*c.Hooknum == *nftables.ChainHookForward || *c.Hooknum == *nftables.ChainHookInput)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return ""
}

func readForeign(conn *nftables.Conn, c *nftables.Chain, chains []*nftables.Chain) (Conflict, error) {
	conflict := Conflict{Family: familyName(c.Table.Family), Table: c.Table.Name, Chain: c.Name, Hook: "forward"}
	if *c.Hooknum == *nftables.ChainHookInput {
		conflict.Hook = "input"
	}
	var beside []string
	for _, other := range chains {
		if other.Table.Family != c.Table.Family || other.Table.Name != c.Table.Name {
			continue
		}
		beside = append(beside, other.Name)
		rules, err := conn.GetRules(c.Table, other)
		if err != nil {
			return conflict, err
		}
		if other.Name == c.Name {
			conflict.Why = ending(c, rules)
		}
		conflict.Named = append(conflict.Named, namedDevices(rules)...)
	}
	slices.Sort(conflict.Named)
	conflict.Named = slices.Compact(conflict.Named)
	conflict.Remedy = remedy(conflict, beside)
	return conflict, nil
}

// ending says what becomes of a packet that no rule of the chain matches.
func ending(c *nftables.Chain, rules []*nftables.Rule) string {
	if n := len(rules); n > 0 {
		if end := unconditional(rules[n-1]); end != "" {
			return "ends in " + end
		}
	}
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return "policy drop"
	}
	return ""
}

// unconditional returns drop or reject for a rule that matches everything.
func unconditional(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Limit:
		case *expr.Reject:
			return "reject"
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return "drop"
			}
			return ""
		default:
			return ""
		}
	}
	return ""
}

// namedDevices returns the device names that rules compare with.
func namedDevices(rules []*nftables.Rule) []string {
	var names []string
	for _, r := range rules {
		byName := false
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Meta:
				byName = e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME
			case *expr.Cmp:
				if byName {
					names = append(names, string(bytes.TrimRight(e.Data, "\x00")))
				}
				byName = false
			}
		}
	}
	return names
}

// remedy is in the words of whoever made the table.
func remedy(c Conflict, chains []string) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(chains, func(name string) bool { return strings.HasPrefix(name, prefix) })
	}
	iptables := map[string]string{"ip": "iptables", "ip6": "ip6tables"}[c.Family]
	switch {
	case c.Table == "firewalld":
		return "firewall-cmd --permanent --zone=trusted --add-interface=DEVICE && firewall-cmd --reload"
	case has("ufw"):
		if c.Hook == "input" {
			return "ufw allow in on DEVICE"
		}
		return "ufw route allow in on DEVICE && ufw route allow out on DEVICE"
	case iptables != "" && c.Table == "filter" && c.Hook == "forward" && has("DOCKER-USER"):
		return fmt.Sprintf("%[1]s -I DOCKER-USER -i DEVICE -j ACCEPT && %[1]s -I DOCKER-USER -o DEVICE -j ACCEPT", iptables)
	case iptables != "" && c.Table == "filter" && c.Hook == "forward":
		return fmt.Sprintf("%[1]s -I %[2]s -i DEVICE -j ACCEPT && %[1]s -I %[2]s -o DEVICE -j ACCEPT", iptables, c.Chain)
	case iptables != "" && c.Table == "filter":
		return fmt.Sprintf("%s -I %s -i DEVICE -j ACCEPT", iptables, c.Chain)
	}
	rule := fmt.Sprintf("nft insert rule %s %s %s", c.Family, c.Table, c.Chain)
	if c.Hook == "input" {
		return rule + " iifname DEVICE accept"
	}
	return rule + " iifname DEVICE accept && " + rule + " oifname DEVICE accept"
}

// legacy reports filter tables of the old iptables, which only exist once someone has
// used it, and which nftables can't see into.
func legacy() []Conflict {
	var all []Conflict
	for _, f := range []struct{ family, file, program string }{
		{"ip", "ip_tables_names", "iptables-legacy"}, {"ip6", "ip6_tables_names", "ip6tables-legacy"},
	} {
		data, err := os.ReadFile("/proc/thread-self/net/" + f.file)
		if errors.Is(err, fs.ErrNotExist) || !slices.Contains(strings.Fields(string(data)), "filter") {
			continue
		}
		all = append(all, Conflict{
			Family: f.family, Table: "filter (" + f.program + ")", Chain: "FORWARD", Hook: "forward", Why: "can't be read",
			Remedy: fmt.Sprintf("see `%[1]s -S FORWARD`; if it drops: %[1]s -I FORWARD -i DEVICE -j ACCEPT && %[1]s -I FORWARD -o DEVICE -j ACCEPT", f.program),
		})
	}
	return all
}

// warnForeign tells the user of conflicts for a network that was just made. What is
// against containers in general is a reason for a line, not for an error.
func warnForeign(ctx context.Context, h *netsetup.Host, device string) {
	conflicts, err := Foreign(ctx, h)
	if err != nil {
		h.Warn("other firewall rules of the host could not be read: " + err.Error())
		return
	}
	for _, c := range conflicts {
		if !slices.Contains(c.Named, device) {
			h.Warn(c.For(device))
		}
	}
}
