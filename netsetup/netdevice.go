package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// netDevice gives a container a device of the host as the OCI runtime specification
// 1.3 wants it (config-linux.md, "Network Devices"): it is moved, keeps its
// permanent global addresses, and is up; nothing else is done to it. In a namespace
// of the container's own it comes home when that has ended: see loan. In one that
// the container joins it stays, since that is somebody else's.
type netDevice struct{}

// Plan validates r without asking the kernel and returns all its faults at once.
func (netDevice) Plan(r Request) (Plan, error) {
	f := requestFaults{where: r.where()}
	if r.Device == "" {
		f.faults = append(f.faults, fmt.Errorf("%s: no device given; DEVICE or DEVICE:NAME", f.where))
	} else {
		f.add("device", r.Device, checkDeviceName(r.Device))
	}
	f.add("interface name", r.IfName, checkTemplate(r.IfName))
	if r.MTU != 0 {
		f.add("mtu", fmt.Sprint(r.MTU), errors.New("the device keeps its own; leave it out"))
	}
	f.nothingElse(r)
	return Plan{Request: r}, errors.Join(f.faults...)
}

// checkTemplate says why name can't be an interface's name, nor one with a "%d" for a
// number.
func checkTemplate(name string) error {
	before, after, _ := strings.Cut(name, "%d")
	return CheckIfName(before + "0" + after)
}

// Attach moves the device into target.
func (netDevice) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, _ []netip.Prefix, _ []netip.Addr, record Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	unlock, err := lockLoans()
	if err != nil {
		return Attachment{}, err
	}
	defer unlock()
	dev, err := h.c.linkByAnyName(p.Device)
	if err != nil {
		return Attachment{}, err
	}
	name, was, err := h.lend(target, dev, &p, false, record)
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{Network: p.networkName(), Strategy: p.Strategy, IfName: name}
	a.lent(p, was)
	a.Kept, a.Addresses = keptAddresses(was.Addresses)
	return a, nil
}

// Check returns every difference between a and the kernel, host side and inside.
func (netDevice) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkLent(target, a)
}

// Configure gives the device its addresses again and brings it up.
func (netDevice) Configure(in *Inside, a Attachment) error {
	l, err := in.c.linkByName(a.IfName)
	if err != nil {
		return err
	}
	if err := in.c.addKept(l, a.Kept, a.HostDevice); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	if err := in.c.setLink(ifinfo(l.index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("%s: set up: %w", a.IfName, err)
	}
	return nil
}

// Commands returns what Attach and Configure do, in the words of iproute2.
func (netDevice) Commands(_ Plan, a Attachment) []Command { return nil }
