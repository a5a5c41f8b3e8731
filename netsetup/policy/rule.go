package policy

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. A register of 16 bytes is also four of 4 bytes, and a key of several
// parts lies in neighbouring ones: 1 and second32 hold two words of 4 bytes.
const (
	first    = 1
	second32 = unix.NFT_REG32_00 + 1
)

// Bits of ct status (enum ip_conntrack_status).
const statusDestinationNAT = 1 << 5

// join makes one rule of its parts, left to right.
func join(parts ...[]expr.Any) []expr.Any {
	var rule []expr.Any
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}

// family matches one of unix.NFPROTO_IPV4 and unix.NFPROTO_IPV6; in a table of
// both, it comes before anything that reads the network header.
func family(proto byte) []expr.Any { return metaIs(expr.MetaKeyNFPROTO, []byte{proto}) }

func metaIs(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: first},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: value},
	}
}

// cameBy matches when the device that the packet came in by is in set.
func cameBy(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first}, lookup(set, false)}
}

// cameNotBy matches when it is not.
func cameNotBy(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first}, lookup(set, true)}
}

// leavesNotBy matches when the device that the packet leaves by is not in set.
func leavesNotBy(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: first}, lookup(set, true)}
}

// leavesBy matches when the device that the packet leaves by is in set.
func leavesBy(set *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: first}, lookup(set, false)}
}

// samePort matches what leaves by the device that it came in by, for the devices
// in set, which holds them in pairs: nftables can't compare two registers.
func samePort(set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		lookup(set, false),
	}
}

func lookup(set *nftables.Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: first, SetName: set.Name, SetID: set.ID, Invert: invert}
}

// A field is a part of the network header.
type field struct{ offset, length uint32 }

var (
	source4      = field{12, 4}
	destination4 = field{16, 4}
	source6      = field{8, 16}
	destination6 = field{24, 16}
)

func (f field) load(register uint32) expr.Any {
	return &expr.Payload{
		DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length,
	}
}

func (f field) in(set *nftables.Set) []expr.Any {
	return []expr.Any{f.load(first), lookup(set, false)}
}

// comesBy matches when the field and, in the register behind it, the device that the packet came in by are in set.
func (f field) comesBy(behind uint32, set *nftables.Set) []expr.Any {
	return []expr.Any{f.load(first), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: behind}, lookup(set, false)}
}

// within compares the field's leading bits with prefix; op is expr.CmpOpEq or
// expr.CmpOpNeq.
func (f field) within(op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	mask := make([]byte, f.length)
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		f.load(first),
		&expr.Bitwise{
			SourceRegister: first, DestRegister: first, Len: f.length,
			Mask: mask, Xor: make([]byte, f.length),
		},
		&expr.Cmp{Op: op, Register: first, Data: prefix.Masked().Addr().AsSlice()},
	}
}

// tracked matches when one of the bits of what connection tracking says is set.
func tracked(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: first},
		&expr.Bitwise{
			SourceRegister: first, DestRegister: first, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: make([]byte, 4)},
	}
}

// toPort matches packets of one transport protocol to one port.
func toPort(proto byte, port uint16) []expr.Any {
	return join(metaIs(expr.MetaKeyL4PROTO, []byte{proto}), []expr.Any{
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: binaryutil.BigEndian.PutUint16(port)},
	})
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}
}

func jump(chain *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Counter{}, &expr.Masq{}} }

// relay sends a packet to where the map says for its source and destination.
func relay(to *nftables.Set) []expr.Any {
	return []expr.Any{
		source4.load(first), destination4.load(second32),
		&expr.Lookup{
			SourceRegister: first, DestRegister: first, IsDestRegSet: true,
			SetName: to.Name, SetID: to.ID,
		},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
			RegAddrMin: first, RegProtoMin: second32,
		},
	}
}

// from gives a packet another source.
func from(addr netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: first, Data: addr.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first},
	}
}

// mark sets bits of the packet's mark.
func mark(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: first},
		&expr.Bitwise{
			SourceRegister: first, DestRegister: first, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bits), Xor: binaryutil.NativeEndian.PutUint32(bits),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: first, SourceRegister: true},
	}
}
