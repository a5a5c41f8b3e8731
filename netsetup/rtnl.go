package netsetup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
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
// devices whole in one request.
type rtnl struct {
	sockets map[int]*nl.SocketHandle
}

// openRTNL opens the socket in the namespace of the calling thread.
func openRTNL() (*rtnl, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: open: %w", err)
	}
	// Both options are 4.20 or older. Strict checking makes the kernel itself filter dumps.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, option, 1); err != nil {
			s.Close()
			return nil, fmt.Errorf("netlink: set socket option %d: %w", option, err)
		}
	}
	limit := unix.Timeval{Sec: answerTimeout}
	_ = s.SetSendTimeout(&limit)
	_ = s.SetReceiveTimeout(&limit)
	return &rtnl{sockets: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

func (c *rtnl) close() {
	c.sockets[unix.NETLINK_ROUTE].Socket.Close()
}

// change sends a request that changes something and waits for its acknowledgement.
func (c *rtnl) change(kind uint16, flags int, data ...nl.NetlinkRequestData) error {
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

// dump asks for all objects that match. A dump during which the kernel's list
// changed is taken again.
func (c *rtnl) dump(kind, answer uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	for try := 1; ; try++ {
		msgs, err := c.execute(kind, unix.NLM_F_DUMP, answer, data)
		if err == nil || try == dumpTries || !errors.Is(err, nl.ErrDumpInterrupted) {
			return msgs, err
		}
	}
}

func (c *rtnl) execute(kind uint16, flags int, answer uint16, data []nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(kind), flags)
	req.Sockets = c.sockets
	for _, d := range data {
		req.AddData(d)
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, answer)
	if errors.Is(err, unix.EAGAIN) {
		return nil, fmt.Errorf("no answer from the kernel in %d s: %w", answerTimeout, err)
	}
	return msgs, err
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

// text reads a string that ends in a zero byte.
func text(b []byte) string { return unix.ByteSliceToString(b) }
