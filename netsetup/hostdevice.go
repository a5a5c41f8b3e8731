package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// hostDevice gives a container a device of the host, as the CNI plugin of the same
// name. Unlike that one it brings the device home as it was, however the container
// ends: see loan.
type hostDevice struct{}

// A hostDeviceConf is what the plugin's own keys say.
type hostDeviceConf struct {
	want wantedDevice
	dpdk bool // a program drives the device: there is no interface to be moved
}

// Plan validates r without asking the kernel and returns all its faults at once.
func (hostDevice) Plan(r Request) (Plan, error) {
	var own hostDeviceConf
	var hwaddr string
	conf, err := confOf(r, func(c *confReader, _ *netConf) []confKey {
		return []confKey{
			{"device", c.checked(&own.want.name, checkDeviceName)},
			{"hwaddr", c.checked(&hwaddr, func(s string) (err error) {
				own.want.hwaddr, err = parseHwaddr(s)
				return err
			})},
			{"kernelpath", c.checked(&own.want.kernelPath, checkKernelPath)},
			{"pciBusID", c.checked(&own.want.pci, checkBusID)},
			{"DPDKMode", c.boolean(&own.dpdk)},
			{"dpdkMode", c.boolean(&own.dpdk)},
		}
	})
	if r.Runtime.DeviceID == "" {
		r.Runtime.DeviceID = conf.asked.deviceID
	}
	p, faults := planNet(r, conf)
	if err == nil && own.want.isZero() && r.Runtime.DeviceID == "" && !r.Unasked {
		err = fmt.Errorf("%s: no device given; device, hwaddr, kernelpath or pciBusID", r.where())
	}
	if conf.ipMasq {
		err = errors.Join(err, fmt.Errorf("%s: ipMasq: a device of the host leads out by itself; leave it out", r.where()))
	}
	p.UplinkMTU, p.Own = false, own
	return p, errors.Join(err, faults)
}

// driven tells whether a program drives the device: of one on the PCI bus its driver
// says so, of others the configuration.
func (c hostDeviceConf) driven(want wantedDevice) (bool, error) {
	if want.pci == "" {
		return c.dpdk, nil
	}
	return want.userspace(sysfs)
}

// parseHwaddr reads a link-layer address of any length.
func parseHwaddr(s string) (net.HardwareAddr, error) {
	a, err := net.ParseMAC(s)
	if err != nil {
		return nil, errors.New("not a hardware address; as 02:00:00:00:00:01")
	}
	return a, nil
}

// checked reads a string that check has nothing against; an empty one says nothing.
func (c *confReader) checked(to *string, check func(string) error) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		c.text(to)(path, v)
		if v.kind != '"' || v.text == "" {
			return
		}
		if err := check(v.text); err != nil {
			c.faultf(path, v.text, "%w", err)
		}
	}
}

// Attach moves the device into target. One that a program drives has no interface: its
// addresses are leased, and nothing is configured.
func (hostDevice) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, record Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	conf, _ := p.Own.(hostDeviceConf)
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	want, err := conf.want.byID(sysfs, p.Runtime.DeviceID)
	if err != nil {
		return Attachment{}, err
	}
	if conf.dpdk, err = conf.driven(want); err != nil {
		return Attachment{}, err
	}
	if conf.dpdk {
		a.MAC, a.Configured = "", true
		return a, nil
	}
	unlock, err := lockLoans()
	if err != nil {
		return Attachment{}, err
	}
	defer unlock()
	dev, err := h.find(sysfs, want)
	if err != nil {
		return Attachment{}, err
	}
	_, was, err := h.lend(target, dev, &p, true, record)
	if err != nil {
		return Attachment{}, err
	}
	a.lent(p, was)
	return a, a.checkMTU()
}

// lent says what the device is that was moved.
func (a *Attachment) lent(p Plan, was deviceState) {
	a.HostDevice = was.Name
	if a.MAC = p.MAC; a.MAC == "" {
		a.MAC = net.HardwareAddr(was.MAC).String()
	}
	if a.MTU = p.MTU; a.MTU == 0 {
		a.MTU = was.MTU
	}
}

// Available looks for the device.
func (hostDevice) Available(h *Host, p Plan) error {
	conf, _ := p.Own.(hostDeviceConf)
	if conf.want.isZero() {
		return nil // whoever starts the container names it
	}
	if driven, err := conf.driven(conf.want); err != nil || driven {
		return err
	}
	_, err := h.find(sysfs, conf.want)
	return err
}

// Check returns every difference between a and the kernel, host side and inside.
func (hostDevice) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil || a.Configured {
		return nil, err
	}
	return h.checkLent(target, a)
}

// checkLent compares a device of the host inside. Whether it has a carrier is its
// cable's matter, and without addresses of ours whoever configures it has his own.
func (h *Host) checkLent(target *NetNS, a Attachment) ([]Difference, error) {
	all, err := h.checkBoth(target, a, nil)
	var found []Difference
	for _, d := range all {
		noCarrier := strings.HasSuffix(d.Object, ": state") && d.Got == "up without carrier"
		own := len(a.Addresses) == 0 && strings.HasSuffix(d.Object, ": address") && d.Want == "none"
		if !noCarrier && !own {
			found = append(found, d)
		}
	}
	return found, err
}

// Configure finishes the interface from within the container's namespace.
func (hostDevice) Configure(in *Inside, a Attachment) error { return in.finish(a, 0) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (hostDevice) Commands(p Plan, a Attachment) []Command {
	if a.Configured {
		return nil
	}
	name, inside := word(a.HostDevice), word(a.IfName)
	commands := []Command{{Line: "ip link set dev " + name + " alias " + name + " name " + inside + " netns $NETNS"}}
	if change := mtuWords(p.MTU) + macWords(p.MAC); change != "" {
		commands = append(commands, Command{Inside: true, Line: "ip link set dev " + inside + change})
	}
	return append(commands, announcedCommands(a, false, false)...)
}

func macWords(mac string) string {
	if mac == "" {
		return ""
	}
	return " address " + mac
}
