package policy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Each start adds elements, and each end removes some, so those messages are made here:
// by one socket that needs no poller, one datagram there, and one back. By the library,
// that was 0.15 ms more.

// smallBatch is what a socket takes as it is (net.core.wmem_default, and what it counts besides).
const smallBatch = 64 << 10

// An elementChange is elements of one set that are added or removed.
type elementChange struct {
	set      *nftables.Set
	remove   bool
	elements []nftables.SetElement
}

// changeElements makes the changes, few and small ones, in one transaction. The error
// wraps the kernel's number.
func changeElements(ctx context.Context, what string, changes ...elementChange) error {
	batch := encodeBatch(changes)
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("nftables: %s: %w", what, err)
		}
		err := exchange(batch)
		if err == nil {
			return nil
		}
		if try == clashTries || !clash(err) {
			return fmt.Errorf("nftables: %s: %w", what, explain(err))
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// encodeBatch numbers the messages from 1. Only the last is to be acknowledged: errors
// are answered in any case.
func encodeBatch(changes []elementChange) []byte {
	changes = split(changes)
	b := appendMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, 1, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	seq := uint32(1)
	for i, c := range changes {
		seq++
		kind := uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM)
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE)
		if c.remove {
			kind, flags = unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELSETELEM, unix.NLM_F_REQUEST
		}
		if i == len(changes)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = appendMessage(b, kind, flags, seq, byte(c.set.Table.Family), 0, c.attributes())
	}
	return appendMessage(b, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, seq+1, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
}

// split makes changes of so few elements each that they fit into a message.
func split(changes []elementChange) (list []elementChange) {
	for _, c := range changes {
		for part := range slices.Chunk(c.elements, elementsPerMessage) {
			list = append(list, elementChange{c.set, c.remove, part})
		}
	}
	return list
}

// appendMessage appends a netlink header, netfilter's own, and attributes.
func appendMessage(b []byte, kind, flags uint16, seq uint32, family byte, resource uint16, attributes []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+4+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows whose socket it is
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attributes...)
}

func (c elementChange) attributes() []byte {
	var list []byte
	for _, e := range c.elements {
		item := appendAttr(nil, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, appendAttr(nil, unix.NFTA_DATA_VALUE, e.Key))
		if len(e.KeyEnd) > 0 {
			item = appendAttr(item, nftables.NFTA_SET_ELEM_KEY_END|unix.NLA_F_NESTED, appendAttr(nil, unix.NFTA_DATA_VALUE, e.KeyEnd))
		}
		if e.VerdictData != nil {
			v := appendAttr(nil, unix.NFTA_VERDICT_CODE, binary.BigEndian.AppendUint32(nil, uint32(e.VerdictData.Kind)))
			v = appendAttr(v, unix.NFTA_VERDICT_CHAIN, append([]byte(e.VerdictData.Chain), 0))
			item = appendAttr(item, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, appendAttr(nil, unix.NFTA_DATA_VERDICT|unix.NLA_F_NESTED, v))
		}
		if len(e.Val) > 0 {
			item = appendAttr(item, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, appendAttr(nil, unix.NFTA_DATA_VALUE, e.Val))
		}
		list = appendAttr(list, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, item)
	}
	b := appendAttr(nil, unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(c.set.Table.Name), 0))
	b = appendAttr(b, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(c.set.Name), 0))
	return appendAttr(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
}

// appendAttr appends one attribute, filled up to a multiple of 4 bytes.
func appendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// exchange sends a batch and returns the first error of the kernel's answers, or nil
// with the acknowledgement. Either is the end: the socket goes, with what else is in it.
func exchange(batch []byte) error {
	return converse(batch, func(answer func() ([]byte, error)) error {
		b, err := answer()
		if err != nil {
			return err
		}
		return readAnswer(b)
	})
}

// holds tells whether all subnets of e are in the table. It reads their sets, which have one element a network, and so
// takes no lock of the kernel's and never waits for anybody's transaction. (Before 6.10 the kernel must not be asked for
// single elements beside a transaction: it looks at what that is at.)
func holds(e elements) (bool, error) {
	t := newTable()
	for _, c := range []elementChange{{set: t.networks4, elements: e.networks4}, {set: t.networks6, elements: e.networks6}} {
		if len(c.elements) == 0 {
			continue
		}
		there, err := dump(c.set)
		if gone(err) || unsupported(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, e := range c.elements {
			if !bytes.Contains(there, e.Key) || !bytes.Contains(there, e.KeyEnd) { // elements of one set share no address
				return false, nil
			}
		}
	}
	return true, nil
}

// dump returns the kernel's messages with all elements of a set.
func dump(set *nftables.Set) (messages []byte, err error) {
	name := appendAttr(nil, unix.NFTA_SET_ELEM_LIST_TABLE, append([]byte(set.Table.Name), 0))
	name = appendAttr(name, unix.NFTA_SET_ELEM_LIST_SET, append([]byte(set.Name), 0))
	request := appendMessage(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, unix.NLM_F_REQUEST|unix.NLM_F_DUMP,
		1, byte(set.Table.Family), 0, name)
	err = converse(request, func(answer func() ([]byte, error)) error {
		for {
			b, err := answer()
			if err != nil {
				return err
			}
			for rest := b; len(rest) >= unix.SizeofNlMsghdr; {
				switch binary.NativeEndian.Uint16(rest[4:]) {
				case unix.NLMSG_DONE:
					return nil
				case unix.NLMSG_ERROR:
					return readAnswer(rest)
				}
				n := int(binary.NativeEndian.Uint32(rest))
				if n < unix.SizeofNlMsghdr || n > len(rest) {
					return errors.New("the kernel's answer is cut off")
				}
				messages = append(messages, rest[:n]...)
				rest = rest[min(len(rest), (n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
			}
		}
	})
	return messages, err
}

// converse sends a request by a socket of its own, and has read take the answers, a datagram each.
func converse(request []byte, read func(answer func() ([]byte, error)) error) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer letGo(s)
	limit := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("socket: set time limit: %w", err)
	}
	if len(request) > smallBatch { // it has to fit into the buffer, and what is wrong with each message into the other
		if err := errors.Join(unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(request)),
			unix.SetsockoptInt(s, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)); err != nil {
			return fmt.Errorf("socket: prepare for %d bytes: %w", len(request), err)
		}
	}
	if err := ignoringEINTR(func() error {
		return unix.Sendto(s, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	buf := make([]byte, 32<<10) // of a dump; an error carries its message, some hundred bytes, back
	return read(func() ([]byte, error) {
		var n int
		err := ignoringEINTR(func() (err error) {
			n, _, err = unix.Recvfrom(s, buf, 0)
			return err
		})
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil, errors.New("no answer")
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		}
		return buf[:n], nil
	})
}

// letGo closes the netfilter socket s without waiting. The kernel waits there, and at the exit
// of a process that has one, until it may free what transactions have removed, whosever they
// were: 4 to 24 ms each time (nft_rcv_nl_event in net/netfilter/nf_tables_api.c). So the socket
// goes, with one end of a pair, into that end's own queue: nobody can receive it from there any
// more, and what clears such queues is a worker of the kernel (net/unix/garbage.c). Before 6.9
// it is the caller himself, and nothing is won.
func letGo(s int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Sendmsg(pair[1], []byte{0}, unix.UnixRights(pair[0], s), nil, unix.MSG_DONTWAIT)
		defer unix.Close(pair[1])
		defer unix.Close(pair[0])
	}
	_ = unix.Close(s) // before the worker can do so, or this one would be the last
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readAnswer reads an NLMSG_ERROR.
func readAnswer(b []byte) error {
	if len(b) < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is no acknowledgement")
	}
	number := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:]))
	if number == 0 {
		return nil
	}
	return unix.Errno(-number)
}
