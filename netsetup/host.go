package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A Host is the host's side of the network: one netlink socket in its namespace,
// with extended acknowledgements, and what was learnt of it. It is not for use
// by several goroutines at once.
type Host struct {
	Warn func(line string) // one line for the user; never nil

	// Trace is told of each finished step of a network, and of what it did in the words of
	// iproute2 and nftables; nil: nobody listens.
	Trace func(step string, took time.Duration, commands []Command)

	c *rtnl
}

// OpenHost opens the network namespace of the calling thread as the host. warn may
// be nil.
func OpenHost(warn func(string)) (*Host, error) {
	c, err := openRTNL()
	if err != nil {
		return nil, err
	}
	if warn == nil {
		warn = func(string) {}
	}
	return &Host{Warn: warn, c: c}, nil
}

// Close closes the socket.
func (h *Host) Close() error {
	h.c.close()
	return nil
}

// An Uplink is the device over which the host reaches the outside.
type Uplink struct {
	Name  string
	Index int
	MTU   int // bytes
}

// Device returns the MAC address and the MTU of a device on the host.
func (h *Host) Device(name string) (net.HardwareAddr, int, error) {
	l, err := h.c.linkByName(name)
	return l.mac, l.mtu, err
}

const ethernetMTU = 1500

// Uplink returns the device of the host's default route, IPv4's before IPv6's: one
// look-up of the route to an address that only a default route serves. The zero
// Uplink and no error if the host has none.
func (h *Host) Uplink() (Uplink, error) {
	// Documentation addresses (RFC 5737, RFC 3849): nobody has a route for them alone.
	for _, dst := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.MustParseAddr("2001:db8::1")} {
		r, err := h.c.lookUpRoute(dst)
		switch {
		case noRoute(err):
			continue
		case err != nil:
			return Uplink{}, err
		case r.kind != unix.RTN_UNICAST || r.index == 0:
			continue
		}
		l, err := h.c.linkByIndex(r.index)
		if err != nil {
			return Uplink{}, err
		}
		return Uplink{Name: l.name, Index: l.index, MTU: l.mtu}, nil
	}
	return Uplink{}, nil
}

// noRoute reports an answer that says that there is none: also what an unreachable,
// prohibit or blackhole route answers with, and a kernel without the family.
func noRoute(err error) bool {
	for _, errno := range []unix.Errno{
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.EAFNOSUPPORT, unix.ESRCH,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// uplinkMTU is the MTU for an interface whose network says none.
func (h *Host) uplinkMTU() (int, error) {
	up, err := h.Uplink()
	if err != nil {
		return 0, err
	}
	if up.MTU == 0 {
		return ethernetMTU, nil
	}
	return min(up.MTU, maxMTU), nil
}

// Undo removes one object of the kinds that this package records: "link",
// "netns-name", "bridge", "device". An object that is gone, or that is somebody else's
// under the same name, is no error.
func Undo(ctx context.Context, h *Host, o Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch o.Kind {
	case "link":
		return h.undoLink(o)
	case "bridge":
		return h.undoBridge(ctx, o)
	case KindDevice:
		return h.undoDevice(o)
	case "netns-name":
		return undoName(o)
	case KindInterface:
		return undoInterface(o)
	case kindIFB:
		return h.undoIFB(o)
	case kindSBR:
		return undoSBR(o)
	case kindVRF:
		return undoVRF(o)
	case kindTuning:
		return undoTuning(o)
	}
	return fmt.Errorf("object of kind %.64q: unknown", o.Kind)
}
