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
	if err := CheckNetDevice(r.Device, r.IfName); err != nil {
		f.faults = append(f.faults, fmt.Errorf("%s: %w", f.where, err))
	}
	if r.MTU != 0 {
		f.add("mtu", fmt.Sprint(r.MTU), errors.New("the device keeps its own; leave it out"))
	}
	f.nothingElse(r)
	return Plan{Request: r}, errors.Join(f.faults...)
}

// CheckNetDevice says why a device of the host can't be called device, or the interface
// inside name, which may have a "%d" for the first number that is free.
func CheckNetDevice(device, name string) error {
	if device == "" {
		return errors.New("no device given; DEVICE or DEVICE:NAME")
	}
	if err := checkDeviceName(device); err != nil {
		return faultf("device", device, "%w", err)
	}
	before, after, template := strings.Cut(name, "%d")
	if template {
		before += "0"
	}
	if err := CheckIfName(before + after); err != nil {
		return faultf("interface name", name, "%w", err)
	}
	return nil
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
func (netDevice) Commands(_ Plan, a Attachment) []Command {
	inside := word(a.IfName)
	commands := []Command{{Line: "ip link set dev " + word(a.HostDevice) + " name " + inside + " netns $NETNS"}}
	for _, raw := range backwardIPv6(a.Kept) {
		line := "ip addr add " + addrWords(raw, a.HostDevice, a.IfName) + " dev " + inside
		commands = append(commands, Command{Inside: true, Line: line})
	}
	return append(commands, Command{Inside: true, Line: "ip link set dev " + inside + " up"})
}
