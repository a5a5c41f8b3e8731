package policy

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// tableName is nsinit's table, of both families. It differs from the names that
// the CNI plugins, podman and docker use, so that all can live on one host.
const tableName = "nsinit"

// A table is the layout of nsinit's own table: what a start adds elements to.
type table struct {
	*nftables.Table

	containers4 *nftables.Set // addresses that are masqueraded
	containers6 *nftables.Set
	networks4   *nftables.Set // subnet . device: masqueraded as a whole
	networks6   *nftables.Set
	devices     *nftables.Set // host side of our networks: bridges and point-to-point ends

	opened4  *nftables.Set // devices for which nsinit switched forwarding on
	opened6  *nftables.Set
	samePort *nftables.Set // those of them that are bridges, as pairs

	local   *nftables.Set // devices whose containers reach a resolver on the host's loopback
	relayed *nftables.Set // container . gateway : resolver . port

	routed  *nftables.Set // those of devices whose containers are reached by their own addresses
	publish publishSets
	guard   guardSets
}

// newTable describes the table. None of its names is a word of nft(8), which couldn't read
// again what it prints. The sets have fixed numbers: the library would
// count in a variable that several goroutines can't share.
func newTable() table {
	t := table{Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	id := uint32(0)
	set := func(name string, key nftables.SetDatatype) *nftables.Set {
		id++
		return &nftables.Set{Table: t.Table, ID: id, Name: name, KeyType: key}
	}
	names := func(name string) *nftables.Set {
		s := set(name, nftables.TypeIFName)
		s.KeyByteOrder = binaryutil.NativeEndian // for `nft list` only
		return s
	}
	t.containers4 = set("containers4", nftables.TypeIPAddr)
	t.containers6 = set("containers6", nftables.TypeIP6Addr)
	subnets := func(name string, addr nftables.SetDatatype) *nftables.Set {
		s := set(name, nftables.MustConcatSetType(addr, nftables.TypeIFName))
		s.Concatenation, s.Interval = true, true
		return s
	}
	t.networks4, t.networks6 = subnets("networks4", nftables.TypeIPAddr), subnets("networks6", nftables.TypeIP6Addr)
	t.devices, t.local = names("ours"), names("local") // nft(8) takes "devices" for a word of its own
	t.opened4, t.opened6 = names("opened4"), names("opened6")
	pairs := func(name string) *nftables.Set {
		s := set(name, nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName))
		s.Concatenation, s.KeyByteOrder = true, binaryutil.NativeEndian
		return s
	}
	t.samePort = pairs("same_port")
	t.relayed = set("relayed", nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr))
	t.relayed.Concatenation, t.relayed.IsMap = true, true
	t.relayed.DataType = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	t.routed = names("routed")
	t.publish, t.guard = newPublishSets(set), newGuardSets(names, pairs)
	return t
}

func (t table) sets() []*nftables.Set {
	return append([]*nftables.Set{
		t.containers4, t.containers6, t.networks4, t.networks6, t.devices, t.opened4, t.opened6, t.samePort, t.local, t.relayed, t.routed,
	}, append(t.publish.all(), t.guard.all()...)...)
}

// A chainSpec is one chain with all its rules.
type chainSpec struct {
	*nftables.Chain
	rules []ruleSpec
}

type ruleSpec struct {
	comment string
	exprs   []expr.Any
	set     *nftables.Set // of the rule's own; nil = none
}

// chains returns the chains in the order in which they can be made. allIPv6 says
// that nsinit had to switch IPv6 forwarding on for all devices at once.
func (t table) chains(allIPv6 bool) []chainSpec {
	opened, publish := t.openedChain(), t.publishChain()
	return []chainSpec{
		opened, t.forwardChain(opened.Chain, allIPv6), t.masqueradeChain(), publish, t.outputChain(publish.Chain),
		t.loopbackChain(), t.relayChain(publish.Chain), t.markChain(), t.answerChain(),
	}
}

// openedChain judges what is forwarded only because nsinit switched forwarding on.
// Established connections and port mappings of others pass: if their device
// forwards, someone else has switched that on.
func (t table) openedChain() chainSpec {
	return chainSpec{&nftables.Chain{Name: "opened", Table: t.Table}, []ruleSpec{
		{exprs: join(tracked(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictReturn))},
		{comment: "port mappings", exprs: join(tracked(expr.CtKeySTATUS, statusDestinationNAT), verdict(expr.VerdictReturn))},
		{comment: "bridged, seen here by br_netfilter", exprs: join(samePort(t.samePort), verdict(expr.VerdictReturn))},
		{comment: "to networks that are routed", exprs: join(leavesBy(t.routed), verdict(expr.VerdictReturn))},
		{comment: "forwarding is on for containers only", exprs: verdict(expr.VerdictDrop)},
	}}
}

func (t table) forwardChain(opened *nftables.Chain, allIPv6 bool) chainSpec {
	rules := append(t.guardRules(), []ruleSpec{
		{comment: "would leave with the container's address", exprs: join(
			cameBy(t.devices), leavesNotBy(t.devices),
			tracked(expr.CtKeySTATE, expr.CtStateBitINVALID), verdict(expr.VerdictDrop))},
		{exprs: join(cameBy(t.devices), verdict(expr.VerdictReturn))},
		{exprs: join(family(unix.NFPROTO_IPV4), cameBy(t.opened4), jump(opened))},
		{exprs: join(family(unix.NFPROTO_IPV6), cameBy(t.opened6), jump(opened))},
	}...)
	if allIPv6 {
		rules = append(rules,
			ruleSpec{comment: "bridged, seen here by br_netfilter", exprs: join(
				family(unix.NFPROTO_IPV6), cameNotBy(t.opened6), bridged(), verdict(expr.VerdictReturn))},
			ruleSpec{exprs: join(family(unix.NFPROTO_IPV6), cameNotBy(t.opened6), jump(opened))})
	}
	return t.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, rules)
}

// bridged matches what goes from a bridge to a bridge.
func bridged() []expr.Any {
	const iifKind, oifKind expr.MetaKey = 26, 27 // NFT_META_IIFKIND and OIFKIND, 5.5; unknown to x/sys
	kind := make([]byte, unix.IFNAMSIZ)
	copy(kind, "bridge")
	return join(metaIs(iifKind, kind), metaIs(oifKind, kind))
}

// masqueradeChain leaves alone what stays on our networks, so that containers see
// each other's own addresses: a bridge's own traffic gets here with br_netfilter,
// what goes from one network to another always.
func (t table) masqueradeChain() chainSpec {
	multicast4, multicast6 := netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")
	out4 := join(leavesNotBy(t.devices), destination4.within(expr.CmpOpNeq, multicast4), masquerade())
	out6 := join(leavesNotBy(t.devices), destination6.within(expr.CmpOpNeq, multicast6), masquerade())
	rules := append(t.hairpinRules(), []ruleSpec{
		{exprs: join(family(unix.NFPROTO_IPV4), source4.in(t.containers4), out4)},
		{exprs: join(family(unix.NFPROTO_IPV6), source6.in(t.containers6), out6)},
		{exprs: join(family(unix.NFPROTO_IPV4), source4.comesBy(second32, t.networks4), out4)},
		{exprs: join(family(unix.NFPROTO_IPV6), source6.comesBy(2, t.networks6), out6)},
	}...)
	return t.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, rules)
}

// loopbackChain holds what route_localnet lets in by the devices that have it:
// nothing may come from a container with an address of the host's loopback, in
// either field. It runs before destinations are translated.
func (t table) loopbackChain() chainSpec {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	in := join(family(unix.NFPROTO_IPV4), cameBy(t.local))
	rules := []ruleSpec{
		{exprs: join(in, destination4.within(expr.CmpOpEq, loopback), verdict(expr.VerdictDrop))},
		{exprs: join(in, source4.within(expr.CmpOpEq, loopback), verdict(expr.VerdictDrop))},
	}
	return t.base("loopback", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, rules)
}

// relayChain turns queries to the gateway towards the resolver, and what is for published
// ports towards their containers.
func (t table) relayChain(publish *nftables.Chain) chainSpec {
	in := join(family(unix.NFPROTO_IPV4), cameBy(t.local))
	rules := []ruleSpec{
		{exprs: join(in, toPort(unix.IPPROTO_UDP, dnsPort), relay(t.relayed))},
		{exprs: join(in, toPort(unix.IPPROTO_TCP, dnsPort), relay(t.relayed))},
		{exprs: join(toHost(), jump(publish))},
	}
	return t.base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, rules)
}

// markChain lets relayed queries pass the guard (see guard.go), each packet of them.
func (t table) markChain() chainSpec {
	rules := []ruleSpec{
		{exprs: join(family(unix.NFPROTO_IPV4), cameBy(t.local),
			destination4.within(expr.CmpOpEq, netip.MustParsePrefix("127.0.0.0/8")),
			tracked(expr.CtKeySTATUS, statusDestinationNAT), mark(relayMark))},
	}
	after := new(*nftables.ChainPriorityNATDest + 1)
	return t.base("relay_mark", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, after, rules)
}

// answerChain gives relayed queries a source on the loopback. systemd-resolved
// throws away what comes to its stub from elsewhere, and unbound refuses it.
func (t table) answerChain() chainSpec {
	rules := []ruleSpec{
		{exprs: join(family(unix.NFPROTO_IPV4), cameBy(t.local),
			destination4.within(expr.CmpOpEq, netip.MustParsePrefix("127.0.0.0/8")),
			tracked(expr.CtKeySTATUS, statusDestinationNAT), from(netip.AddrFrom4([4]byte{127, 0, 0, 1})))},
	}
	return t.base("input", nftables.ChainTypeNAT, nftables.ChainHookInput, nftables.ChainPriorityNATSource, rules)
}

// base makes a base chain that accepts what its rules don't judge.
func (t table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority, rules []ruleSpec) chainSpec {
	accept := nftables.ChainPolicyAccept
	return chainSpec{&nftables.Chain{
		Name: name, Table: t.Table, Type: kind, Hooknum: hook, Priority: prio, Policy: &accept,
	}, rules}
}

// userData is how nft stores a rule's comment.
func (r ruleSpec) userData() []byte {
	if r.comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}
