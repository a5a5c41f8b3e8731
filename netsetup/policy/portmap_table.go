package policy

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The part of the table that publishes ports. A port, or a range that keeps its numbers,
// is one element of a map; its key has ranges of addresses and of ports in it, so that
// all mappings are found in one look-up.

// publishSets are the sets of one table for published ports.
type publishSets struct {
	taken              *nftables.Set // ports of the host that a container has: for nsinit, no rule reads it
	ports4, ports6     *nftables.Set // address . protocol . port : container . port
	ranges4, ranges6   *nftables.Set // address . protocol . ports : container, and the port stays
	hairpin4, hairpin6 *nftables.Set // source . container: masqueraded on their way through a port
}

func newPublishSets(set func(string, nftables.SetDatatype) *nftables.Set) publishSets {
	proto, port := nftables.TypeInetProto, nftables.TypeInetService
	concat := func(name string, types ...nftables.SetDatatype) *nftables.Set {
		s := set(name, nftables.MustConcatSetType(types...))
		s.Concatenation, s.Interval = true, true
		return s
	}
	mapTo := func(s *nftables.Set, data nftables.SetDatatype) *nftables.Set {
		s.IsMap, s.DataType = true, data
		return s
	}
	v4, v6 := nftables.TypeIPAddr, nftables.TypeIP6Addr
	p := publishSets{
		taken:    concat("taken_ports", v6, proto, port, port),
		ports4:   mapTo(concat("ports4", v4, proto, port), nftables.MustConcatSetType(v4, port)),
		ports6:   mapTo(concat("ports6", v6, proto, port), nftables.MustConcatSetType(v6, port)),
		ranges4:  mapTo(concat("ranges4", v4, proto, port), v4),
		ranges6:  mapTo(concat("ranges6", v6, proto, port), v6),
		hairpin4: concat("hairpin4", v4, v4),
		hairpin6: concat("hairpin6", v6, v6),
	}
	p.taken.Interval = false
	return p
}

func (p publishSets) all() []*nftables.Set {
	return []*nftables.Set{p.taken, p.ports4, p.ports6, p.ranges4, p.ranges6, p.hairpin4, p.hairpin6}
}

// publishChain turns packets to published ports towards their containers.
func (t table) publishChain() chainSpec {
	rules := []ruleSpec{
		t.publishRule(unix.NFPROTO_IPV4, t.publish.ports4, true),
		t.publishRule(unix.NFPROTO_IPV4, t.publish.ranges4, false),
		t.publishRule(unix.NFPROTO_IPV6, t.publish.ports6, true),
		t.publishRule(unix.NFPROTO_IPV6, t.publish.ranges6, false),
	}
	return chainSpec{&nftables.Chain{Name: "publish", Table: t.Table}, rules}
}

// publishRule looks a packet's destination up in a map. nft(8) takes such a rule, which it
// prints, only behind a match of the protocols that have ports.
func (t table) publishRule(proto byte, to *nftables.Set, withPort bool) ruleSpec {
	const word = unix.NFT_REG32_00
	address, next := destination4, uint32(word+1)
	if proto == unix.NFPROTO_IPV6 {
		address, next = destination6, word+4
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(proto), RegAddrMin: first}
	if withPort {
		nat.RegProtoMin = next
	}
	transports := transports(t.Table, to.ID)
	return ruleSpec{
		exprs: join(family(proto), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, lookup(transports, false),
			address.load(first),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
			&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: to.Name, SetID: to.ID},
			nat,
		}),
		set: transports,
	}
}

// transports is a set of a rule's own: the protocols that have ports.
func transports(t *nftables.Table, id uint32) *nftables.Set {
	const apart = 1000 // from the numbers of the other sets
	return &nftables.Set{
		Table: t, ID: apart + id, Name: "__set%d", Anonymous: true, Constant: true, KeyType: nftables.TypeInetProto,
	}
}

func transportElements() []nftables.SetElement {
	var list []nftables.SetElement
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		list = append(list, nftables.SetElement{Key: []byte{p}})
	}
	return list
}

// toHost matches what is addressed to the host itself.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: first, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: []byte{unix.RTN_LOCAL, 0, 0, 0}},
	}
}

// outputChain is for the host's own connections to its ports.
func (t table) outputChain(publish *nftables.Chain) chainSpec {
	return t.base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest,
		[]ruleSpec{{exprs: join(toHost(), jump(publish))}})
}

// hairpinRules masquerade what would be answered past the host: by a neighbour, or to the
// host's loopback.
func (t table) hairpinRules() []ruleSpec {
	rule := func(proto byte, source, destination field, register uint32, set *nftables.Set) ruleSpec {
		return ruleSpec{exprs: join(family(proto), tracked(expr.CtKeySTATUS, statusDestinationNAT),
			[]expr.Any{source.load(first), destination.load(register), lookup(set, false)}, masquerade())}
	}
	return []ruleSpec{
		rule(unix.NFPROTO_IPV4, source4, destination4, second32, t.publish.hairpin4),
		rule(unix.NFPROTO_IPV6, source6, destination6, 2, t.publish.hairpin6),
	}
}
