package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// bridge connects a container by a veth pair to a bridge of the host, which is
// made when the first one needs it. Its configuration is that of the CNI plugin
// of the same name, and so is what it leaves in the kernel.
type bridge struct{}

// defaultBridge is what the CNI plugin takes if the configuration names none.
const defaultBridge = "cni0"

// Plan validates r without asking the kernel and returns all its faults at once.
func (bridge) Plan(r Request) (Plan, error) {
	conf, err := confOf(r, bridgeKeys)
	p, faults := planNet(r, conf)
	if p.Bridge = conf.bridge; p.Bridge == "" {
		p.Bridge = defaultBridge
	}
	p.ForceAddress, p.Hairpin, p.Promiscuous = conf.forceAddress, conf.hairpin, conf.promiscuous
	if bad := CheckIfName(p.Bridge); bad != nil {
		err = errors.Join(err, faultf(r.fileName()+": plugins[0].bridge", p.Bridge, "%w", bad))
	}
	if p.Hairpin && p.Promiscuous {
		err = errors.Join(err, fmt.Errorf("%s: plugins[0].hairpinMode: excludes promiscMode; one of them", r.fileName()))
	}
	return p, errors.Join(err, faults)
}

func bridgeKeys(c *confReader, to *netConf) []confKey {
	keys := []confKey{
		{"bridge", c.text(&to.bridge)},
		{"isGateway", c.boolean(&to.isGateway)},
		{"isDefaultGateway", c.boolean(&to.isDefault)},
		{"forceAddress", c.boolean(&to.forceAddress)},
		{"hairpinMode", c.boolean(&to.hairpin)},
		{"promiscMode", c.boolean(&to.promiscuous)},
		{"enabledad", c.boolean(&to.dad)},
	}
	keys = append(keys, ignored("preserveDefaultVlan")...) // says something only beside vlan
	return append(keys, c.notYet("vlan", "vlanTrunk", "macspoofchk", "portIsolation", "disableContainerInterface")...)
}

// Attach finds or makes the bridge and puts one end of a pair into target.
func (bridge) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, addrs []netip.Prefix, gateways []netip.Addr, record Recorder) (Attachment, error) {
	if err := ctx.Err(); err != nil {
		return Attachment{}, err
	}
	a, err := p.attachment(addrs, gateways)
	if err != nil {
		return Attachment{}, err
	}
	// A bridge that somebody takes away between the look-up and the request makes
	// the request fail with EINVAL; the second time it is made again.
	for try := 1; ; try++ {
		br, err := h.ensureBridge(p, addrs, record)
		if err != nil {
			return Attachment{}, err
		}
		if a.Bridge, a.MTU = br.name, p.MTU; a.MTU == 0 {
			a.MTU = br.mtu
		}
		if err := a.checkMTU(); err != nil {
			return Attachment{}, fmt.Errorf("%s: %w", br.name, err)
		}
		a.HostIf, err = h.addPair(target, pairOf(p, a, br.index))
		switch {
		case err == nil:
			return a, nil
		case errors.Is(err, unix.EXFULL):
			return Attachment{}, fmt.Errorf("%s: a bridge has at most 1023 ports; give the network another one: %w", br.name, err)
		case try == 2 || !errors.Is(err, unix.EINVAL):
			return Attachment{}, err
		}
	}
}

func pairOf(p Plan, a Attachment, master int) pair {
	mac, _ := ParseMAC(a.MAC) // checked by Plan, or derived
	return pair{
		network: a.Network, owner: p.Owner, ifName: a.IfName,
		mac: mac, mtu: a.MTU, master: master, hairpin: p.Hairpin,
	}
}

// Check returns every difference between a and the kernel, host side and inside.
func (bridge) Check(ctx context.Context, h *Host, target *NetNS, a Attachment) ([]Difference, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.checkBoth(target, a, h.checkPort)
}

// Configure finishes the interface from within the container's namespace.
func (bridge) Configure(in *Inside, a Attachment) error { return in.finish(a, 0) }

// Commands returns what Attach and Configure do, in the words of iproute2.
func (bridge) Commands(Plan, Attachment) []Command { return nil }
