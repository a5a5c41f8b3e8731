package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dummy gives a container a device that leads nowhere, to hold addresses: what is
// sent there is gone. Configuration and what it leaves in the kernel are those of the
// CNI plugin of the same name.
type dummy struct{}

// Plan validates r without asking the kernel and returns all its faults at once.
func (dummy) Plan(r Request) (Plan, error) {
	conf, err := confOf(r, func(*confReader, *netConf) []confKey { return nil })
	p, faults := planNet(r, conf)
	p.NoLease = true // the same address in two containers does no harm
	return p, errors.Join(err, faults, checkLink(p, conf, false))
}

// Attach makes the device in target.
func (dummy) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, _ Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	a.MTU = p.MTU
	info, _ := kindAttr("dummy")
	request := []nl.NetlinkRequestData{macAttr(a.MAC), info}
	if a.MTU != 0 {
		request = append(request, mtuAttr(a.MTU))
	}
	err = h.addInto(target, a.IfName, request...)
	switch {
	case errors.Is(err, unix.EEXIST):
		return Attachment{}, fmt.Errorf("%s: make: the container's network namespace has an interface of this name already; give another interface_name: %w", a.IfName, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return Attachment{}, fmt.Errorf("%s: make: %s: %w", a.IfName, noKind("dummy"), err)
	case err != nil:
		return Attachment{}, fmt.Errorf("%s: make: %w", a.IfName, err)
	}
	return a, nil
}

// Check returns every difference between a and the kernel.
func (dummy) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkKind(target, a, "dummy", func(*comparison, link) error { return nil })
}

// Configure finishes the interface from within the container's namespace.
func (dummy) Configure(in *Inside, a Attachment) error { return in.finish(a, 0) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (dummy) Commands(p Plan, a Attachment) []Command {
	line := "ip link add " + word(a.IfName) + " netns $NETNS" + mtuWords(p.MTU) + " address " + a.MAC + " type dummy"
	return append([]Command{{Line: line}}, announcedCommands(a, false, false)...)
}
