package netsetup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/nsinit/nsinit/netsetup/gate"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for one answer, in seconds. The rtnl lock is one
// for the machine: with many starters it is held for long, but not that long.
const answerTimeout = 30

// dumpTries is how often an interrupted dump is taken again.
const dumpTries = 8

// An rtnl is one rtnetlink socket. It speaks to the namespace in which it was
// opened, whatever its user's thread does later. The library's Handle would do,
// but can't ask for extended acknowledgements, and has no way to make a pair of
// devices whole in one request; its sockets don't block, so that each answer is a
// switch of threads, and have a buffer of 64 KiB on the stack.
type rtnl struct {
	fd     int    // -1: closed
	port   uint32 // the socket's address
	answer []byte // what came last

	procfs *os.File // through which settings are written; nil: the one at /proc
}

// maxAnswer is the most that the kernel puts into one datagram of a dump
// (netlink_recvmsg; 3.15). All other answers are shorter.
const maxAnswer = 32 << 10

// openRTNL opens the socket in the namespace of the calling thread.
func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: open: %w", err)
	}
	c := &rtnl{fd: fd, answer: make([]byte, maxAnswer)}
	if err := c.prepare(); err != nil {
		c.close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return c, nil
}

func (c *rtnl) prepare() error {
	// Both options are 4.20 or older. Strict checking makes the kernel itself filter dumps.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, option, 1); err != nil {
			return fmt.Errorf("set socket option %d: %w", option, err)
		}
	}
	limit := unix.Timeval{Sec: answerTimeout}
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fmt.Errorf("set time limit: %w", err)
		}
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	addr, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if own, ok := addr.(*unix.SockaddrNetlink); ok {
		c.port = own.Pid
	}
	return nil
}

func (c *rtnl) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// send sends one request to the kernel.
func (c *rtnl) send(request []byte) error {
	for {
		err := unix.Sendto(c.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return timely(err)
		}
	}
}

// receive returns the messages of the kernel's next datagram. They last until the
// next call.
func (c *rtnl) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.answer, unix.MSG_TRUNC)
		switch sender, ok := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, timely(err)
		case !ok || sender.Pid != nl.PidKernel: // another process may send to us
		case n > len(c.answer):
			return nil, fmt.Errorf("an answer of %d bytes, and %d are the most", n, len(c.answer))
		default:
			return syscall.ParseNetlinkMessage(c.answer[:min((n+3)&^3, len(c.answer))])
		}
	}
}

// change sends a request that changes something and waits for its acknowledgement.
func (c *rtnl) change(kind uint16, flags int, data ...nl.NetlinkRequestData) error {
	gate.Change()
	_, err := c.execute(kind, flags|unix.NLM_F_ACK, 0, data)
	return err
}

// get asks for one object; the answer is what follows the netlink header.
func (c *rtnl) get(kind, answer uint16, data ...nl.NetlinkRequestData) ([]byte, error) {
	msgs, err := c.execute(kind, 0, answer, data)
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 {
		return nil, errors.New("the kernel's answer is empty")
	}
	return msgs[0], nil
}

// errInterrupted: the kernel's list changed while it was dumped.
var errInterrupted = errors.New("the list changed while it was read")

// dump asks for all objects that match, again if the list changed meanwhile.
func (c *rtnl) dump(kind, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	for try := 1; ; try++ {
		msgs, err := c.execute(kind, unix.NLM_F_DUMP, answer, data)
		if err == nil || try == dumpTries || !errors.Is(err, errInterrupted) && !errors.Is(err, unix.ENOBUFS) {
			return msgs, err
		}
	}
}

// execute sends one request and collects the answers of a type up to the one that
// ends it. The library's Execute panics where the end of a dump carries the kernel's
// words (v1.3.1).
func (c *rtnl) execute(kind uint16, flags int, answer uint16, data []nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(kind), flags)
	req.Data = data
	if err := c.send(req.Serialize()); err != nil {
		return nil, err
	}
	var found [][]byte
	var interrupted error
	for {
		msgs, err := c.receive()
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if m.Header.Seq != req.Seq || m.Header.Pid != c.port {
				continue // the rest of an earlier answer
			}
			if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = errInterrupted
			}
			switch m.Header.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				return found, errors.Join(ended(m.Header.Type, m.Header.Flags, m.Data), interrupted)
			case answer:
				found = append(found, bytes.Clone(m.Data))
			}
			if m.Header.Flags&unix.NLM_F_MULTI == 0 && flags&unix.NLM_F_ACK == 0 {
				return found, nil
			}
		}
	}
}

// timely names what the time limit is reported as.
func timely(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("no answer from the kernel in %d s: %w", answerTimeout, err)
	}
	return err
}

// ended reads the message that ends an answer: an error number, 0 for none; the
// request's header and perhaps its body (NLMSG_ERROR only); and the kernel's own
// words, if it has any (extended acknowledgement, 4.12; at the end of a dump,
// 4.20).
func ended(kind, flags uint16, data []byte) error {
	if len(data) < 4 {
		return nil // NLMSG_DONE may be empty
	}
	code := u32(data)
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(-code))
	rest := data[4:]
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	if kind == unix.NLMSG_ERROR {
		skip := unix.SizeofNlMsghdr
		if flags&unix.NLM_F_CAPPED == 0 && len(rest) >= 4 {
			skip = (u32(rest) + 3) &^ 3
		}
		if skip < 0 || skip > len(rest) {
			return err
		}
		rest = rest[skip:]
	}
	attrs(rest, func(kind uint16, v []byte) {
		if kind == nl.NLMSGERR_ATTR_MSG {
			err = fmt.Errorf("%w: %s", err, text(v))
		}
	})
	return err
}

// attrs calls f with each attribute of b: its type without flags, and its value.
// What follows a malformed attribute is left out.
func attrs(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(nl.NativeEndian().Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		f(nl.NativeEndian().Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		if n = (n + 3) &^ 3; n > len(b) {
			return
		}
		b = b[n:]
	}
}

// u32 reads a value of the kernel's byte order; 0 if it is too short.
func u32(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(int32(nl.NativeEndian().Uint32(b)))
}

// u16 is u32 for two bytes.
func u16(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	return int(nl.NativeEndian().Uint16(b))
}

// text reads a string that ends in a zero byte.
func text(b []byte) string { return unix.ByteSliceToString(b) }
