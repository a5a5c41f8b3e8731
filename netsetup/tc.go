package netsetup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	handleRoot    = 0xffffffff // TC_H_ROOT
	handleIngress = 0xfffffff1 // TC_H_INGRESS
	handleBucket  = 1 << 16    // 1:
	handleFilters = 0xffff0000 // ffff:, of what comes in
	classLimited  = handleBucket | 2
	classDirect   = handleBucket // out at once, past the classes

	actStolen      = 4  // TC_ACT_STOLEN
	egressRedirect = 1  // TCA_EGRESS_REDIR
	offSource4     = 12 // of an address in the IPv4 header
	offSource6     = 8

	// struct tc_mirred, of seven words. The library takes it for two bytes longer.
	sizeMirred   = 28
	mirredAction = 8
	mirredWhat   = 20
	mirredDevice = 24

	directQueue = 1000 // packets that wait in the way past; a device without a queue would have none
)

// A tcHeader says of which object of which device a request is.
func tcHeader(index int, parent, handle uint32) *nl.TcMsg {
	return &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Handle: handle}
}

func (c *rtnl) addTC(kind uint16, header *nl.TcMsg, name string, options *nl.RtAttr) error {
	data := []nl.NetlinkRequestData{header, nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(name))}
	if options != nil {
		data = append(data, options)
	}
	return c.change(kind, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

func tcOptions() *nl.RtAttr { return nl.NewRtAttr(nl.TCA_OPTIONS, nil) }

// addBucket limits all that leaves a device.
func (c *rtnl) addBucket(index int, b bucket) error {
	options := tcOptions()
	parms := nl.TcTbfQopt{Limit: b.limit, Buffer: b.ticks()}
	parms.Rate.Rate = uint32(b.rate)
	options.AddRtAttr(nl.TCA_TBF_PARMS, parms.Serialize())
	if b.rate > 1<<32-1 {
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(b.rate))
	}
	if err := c.addTC(unix.RTM_NEWQDISC, tcHeader(index, handleRoot, handleBucket), "tbf", options); err != nil {
		return fmt.Errorf("add token bucket: %w", err)
	}
	return nil
}

// addClasses makes a device's queue one with a limited class and a way past it. What
// no filter picks goes to def, a minor number; 0 is the way past.
func (c *rtnl) addClasses(index int, b bucket, def uint32) error {
	options := tcOptions()
	global := nl.TcHtbGlob{Version: 3, Rate2Quantum: 10, Defcls: def}
	options.AddRtAttr(nl.TCA_HTB_INIT, global.Serialize())
	options.AddRtAttr(nl.TCA_HTB_DIRECT_QLEN, nl.Uint32Attr(directQueue))
	if err := c.addTC(unix.RTM_NEWQDISC, tcHeader(index, handleRoot, handleBucket), "htb", options); err != nil {
		return fmt.Errorf("add classes: %w", err)
	}
	options = tcOptions()
	class := nl.TcHtbCopt{Buffer: b.ticks(), Cbuffer: b.ticks(), Quantum: uint32(b.quantum())}
	class.Rate.Rate, class.Ceil.Rate = uint32(min(b.rate, 1<<32-1)), uint32(min(b.rate, 1<<32-1))
	options.AddRtAttr(nl.TCA_HTB_PARMS, class.Serialize())
	if b.rate > 1<<32-1 {
		options.AddRtAttr(nl.TCA_HTB_RATE64, nl.Uint64Attr(b.rate))
		options.AddRtAttr(nl.TCA_HTB_CEIL64, nl.Uint64Attr(b.rate))
	}
	if err := c.addTC(unix.RTM_NEWTCLASS, tcHeader(index, handleBucket, classLimited), "htb", options); err != nil {
		return fmt.Errorf("add limited class: %w", err)
	}
	fifo := nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(b.limit))
	if err := c.addTC(unix.RTM_NEWQDISC, tcHeader(index, classLimited, 2<<16), "bfifo", fifo); err != nil {
		return fmt.Errorf("add queue of the limited class: %w", err)
	}
	return nil
}

// A match is one word of a packet, from its network header on.
type match struct {
	offset      int32
	value, mask uint32
}

// addFilter gives what matches all of words to class. act may be nil.
func (c *rtnl) addFilter(index int, parent uint32, protocol, priority uint16, words []match, class uint32, act *nl.RtAttr) error {
	options := tcOptions()
	selector := nl.TcU32Sel{Flags: nl.TC_U32_TERMINAL, Nkeys: uint8(len(words))}
	for _, w := range words {
		selector.Keys = append(selector.Keys, nl.TcU32Key{Mask: network32(w.mask), Val: network32(w.value), Off: w.offset})
	}
	options.AddRtAttr(nl.TCA_U32_SEL, selector.Serialize())
	options.AddRtAttr(nl.TCA_U32_CLASSID, nl.Uint32Attr(class))
	if act != nil {
		options.AddChild(act)
	}
	header := tcHeader(index, parent, 0)
	header.Info = uint32(priority)<<16 | uint32(network16(protocol))
	if err := c.addTC(unix.RTM_NEWTFILTER, header, "u32", options); err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// network32 is n as memory has it in network byte order.
func network32(n uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return nl.NativeEndian().Uint32(b[:])
}

func network16(n uint16) uint16 {
	if nl.NativeEndian().Uint16([]byte{1, 0}) == 1 {
		return bits.ReverseBytes16(n)
	}
	return n
}

// redirect is the action that sends a packet out by another device in place of all
// else.
func redirect(index int) *nl.RtAttr {
	actions := nl.NewRtAttr(nl.TCA_U32_ACT, nil)
	action := actions.AddRtAttr(nl.TCA_ACT_TAB, nil)
	action.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated("mirred"))
	parms := make([]byte, sizeMirred)
	nl.NativeEndian().PutUint32(parms[mirredAction:], actStolen)
	nl.NativeEndian().PutUint32(parms[mirredWhat:], egressRedirect)
	nl.NativeEndian().PutUint32(parms[mirredDevice:], uint32(index))
	action.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(nl.TCA_MIRRED_PARMS, parms)
	return actions
}

// redirectAll sends all that comes in by a device out by another.
func (c *rtnl) redirectAll(from, to int) error {
	if err := c.addTC(unix.RTM_NEWQDISC, tcHeader(from, handleIngress, handleFilters), "ingress", nil); err != nil {
		return fmt.Errorf("add ingress: %w", err)
	}
	return c.addFilter(from, handleFilters, unix.ETH_P_ALL, 1, []match{{}}, classDirect|1, redirect(to))
}

// pick gives what goes to p, or comes from there, to class.
func (c *rtnl) pick(index int, p netip.Prefix, source bool, class uint32) error {
	offset, protocol, priority := int32(offSource4), uint16(unix.ETH_P_IP), uint16(1)
	size := int32(4)
	if p.Addr().Is6() {
		offset, protocol, priority, size = offSource6, unix.ETH_P_IPV6, 2, 16
	}
	if !source {
		offset += size
	}
	words := []match{{offset: offset}} // of 0.0.0.0/0
	address := p.Addr().AsSlice()
	for i := 0; i < len(address) && i*8 < p.Bits(); i += 4 {
		w := match{offset: offset + int32(i), value: binary.BigEndian.Uint32(address[i:]), mask: 1<<32 - 1}
		if rest := p.Bits() - i*8; rest < 32 {
			w.mask <<= 32 - rest
		}
		words = append(words[:i/4], w)
	}
	return c.addFilter(index, handleBucket, protocol, priority, words, class, nil)
}

// limitOf describes a device's root queue, and its limit if it has one. NLM_F_ECHO has the
// kernel answer the asker.
func (c *rtnl) limitOf(index int) (string, error) {
	kind, options, err := c.queue(index, handleRoot, 0)
	if err != nil || kind == "" {
		return "none", err
	}
	b, ticks := bucket{}, 0
	switch kind {
	case "tbf":
		attrs(options, func(attr uint16, v []byte) {
			switch {
			case attr == nl.TCA_TBF_PARMS && len(v) >= nl.SizeofTcTbfQopt:
				q := nl.DeserializeTcTbfQopt(v)
				b.rate, b.limit, ticks = max(b.rate, uint64(q.Rate.Rate)), q.Limit, int(q.Buffer)
			case attr == nl.TCA_TBF_RATE64 && len(v) >= 8:
				b.rate = nl.NativeEndian().Uint64(v)
			}
		})
	case "htb":
		if b, ticks, err = c.classLimit(index); err != nil {
			return "", err
		}
	default:
		return kind, nil
	}
	return fmt.Sprintf("%s rate %d B/s, burst %d ticks, limit %d B", kind, b.rate, ticks, b.limit), nil
}

func (c *rtnl) queue(index int, parent, handle uint32) (kind string, options []byte, err error) {
	msgs, err := c.execute(unix.RTM_GETQDISC, unix.NLM_F_ECHO, unix.RTM_NEWQDISC, []nl.NetlinkRequestData{tcHeader(index, parent, handle)})
	if errors.Is(err, unix.ENOENT) || err == nil && len(msgs) == 0 {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("look up queue: %w", err)
	}
	kind, options = parseTC(msgs[0])
	return kind, options, nil
}

func parseTC(b []byte) (kind string, options []byte) {
	if len(b) < nl.SizeofTcMsg {
		return "", nil
	}
	attrs(b[nl.SizeofTcMsg:], func(attr uint16, v []byte) {
		switch attr {
		case nl.TCA_KIND:
			kind = text(v)
		case nl.TCA_OPTIONS:
			options = v
		}
	})
	return kind, options
}

// classLimit reads the limited class and its queue.
func (c *rtnl) classLimit(index int) (b bucket, ticks int, err error) {
	msgs, err := c.execute(unix.RTM_GETTCLASS, unix.NLM_F_ECHO, unix.RTM_NEWTCLASS, []nl.NetlinkRequestData{tcHeader(index, 0, classLimited)})
	if err != nil || len(msgs) == 0 {
		return b, 0, err
	}
	_, options := parseTC(msgs[0])
	attrs(options, func(attr uint16, v []byte) {
		switch {
		case attr == nl.TCA_HTB_PARMS && len(v) >= nl.SizeofTcHtbCopt:
			q := nl.DeserializeTcHtbCopt(v)
			b.rate, ticks = max(b.rate, uint64(q.Rate.Rate)), int(q.Buffer)
		case attr == nl.TCA_HTB_RATE64 && len(v) >= 8:
			b.rate = nl.NativeEndian().Uint64(v)
		}
	})
	if kind, options, err := c.queue(index, classLimited, 0); err == nil && kind == "bfifo" {
		b.limit = uint32(u32(options))
	}
	return b, ticks, nil
}

// redirection returns the device to which all that comes in by index goes, 0 if none.
func (c *rtnl) redirection(index int) (to int, err error) {
	msgs, err := c.dump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, tcHeader(index, handleFilters, 0))
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // no ingress
		return 0, fmt.Errorf("list filters: %w", err)
	}
	for _, m := range msgs {
		_, options := parseTC(m)
		attrs(options, func(attr uint16, v []byte) {
			if attr == nl.TCA_U32_ACT {
				attrs(v, func(_ uint16, v []byte) { to = max(to, redirectedTo(v)) })
			}
		})
	}
	return to, nil
}

func redirectedTo(action []byte) (to int) {
	attrs(action, func(attr uint16, v []byte) {
		if attr != nl.TCA_ACT_OPTIONS {
			return
		}
		attrs(v, func(attr uint16, v []byte) {
			if attr == nl.TCA_MIRRED_PARMS && len(v) >= sizeMirred {
				to = u32(v[mirredDevice:])
			}
		})
	})
	return to
}
