package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

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
	var port BridgePort
	conf, err := confOf(r, func(c *confReader, to *netConf) []confKey { return bridgeKeys(c, to, &port) })
	p, faults := planNet(r, conf)
	if p.Bridge = conf.bridge; p.Bridge == "" {
		p.Bridge = defaultBridge
	}
	p.ForceAddress, p.Promiscuous = conf.forceAddress, conf.promiscuous
	p.Own = port
	err = errors.Join(err, planPort(&p, &port))
	if bad := CheckIfName(p.Bridge); bad != nil {
		err = errors.Join(err, faultf(r.fileName()+": plugins[0].bridge", p.Bridge, "%w", bad))
	}
	return p, errors.Join(err, faults)
}

// planPort completes port from p, and says what can't be together.
func planPort(p *Plan, port *BridgePort) error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: plugins[0].%s: %w", p.fileName(), key, fmt.Errorf(format, args...)))
	}
	if port.Hairpin && p.Promiscuous {
		fault("hairpinMode", "excludes promiscMode; one of them")
	}
	if port.Down && p.IPAM != "" {
		fault("disableContainerInterface", "an interface that stays down has no addresses; leave ipam out, or this")
	}
	if port.Down && len(p.Routes) > 0 {
		fault("disableContainerInterface", "an interface that stays down has no routes; leave route %s out, or this", p.Routes[0].Dst)
	}
	port.Trunk = merged(port.Trunk)
	if p.Gateway && p.IPAM != "" && port.VLAN != 0 {
		port.GatewayIf = p.Bridge + "." + strconv.Itoa(port.VLAN)
		if err := CheckIfName(port.GatewayIf); err != nil {
			fault("bridge", "%q, the gateway's device in VLAN %d: %w", port.GatewayIf, port.VLAN, err)
		}
	}
	p.Own = *port
	return errors.Join(faults...)
}

func bridgeKeys(c *confReader, to *netConf, port *BridgePort) []confKey {
	return []confKey{
		{"bridge", c.text(&to.bridge)},
		{"isGateway", c.boolean(&to.isGateway)},
		{"isDefaultGateway", c.boolean(&to.isDefault)},
		{"forceAddress", c.boolean(&to.forceAddress)},
		{"hairpinMode", c.boolean(&port.Hairpin)},
		{"promiscMode", c.boolean(&to.promiscuous)},
		{"enabledad", c.boolean(&to.dad)},
		{"vlan", c.vlan(0, &port.VLAN)},
		{"vlanTrunk", c.list(c.vlans(&port.Trunk))},
		{"preserveDefaultVlan", c.boolean(&port.KeepDefault)},
		{"macspoofchk", c.boolean(&port.SpoofCheck)},
		{"portIsolation", c.boolean(&port.Isolated)},
		{"disableContainerInterface", c.boolean(&port.Down)},
	}
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
		br, made, err := h.ensureBridge(p, addrs, record)
		a.NewBridge = a.NewBridge || made
		if err != nil {
			return Attachment{}, err
		}
		if a.Bridge, a.MTU = br.name, p.MTU; a.MTU == 0 {
			a.MTU = br.mtu
		}
		if port := p.port(); !port.plain() {
			a.Port = &port
		}
		if err := a.checkMTU(); err != nil {
			return Attachment{}, fmt.Errorf("%s: %w", br.name, err)
		}
		a.HostIf, err = h.addPort(target, p, a, br)
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

// port returns what Plan made of the keys that concern the port alone.
func (p *Plan) port() BridgePort {
	port, _ := p.Own.(BridgePort)
	return port
}

// addPort makes the pair, with its host's end in br and in its VLANs.
func (h *Host) addPort(target *NetNS, p Plan, a Attachment, br link) (string, error) {
	name, err := h.addPair(target, pairOf(p, a, br.index))
	if port := p.port(); err == nil && port.filtered() {
		var end link
		if end, err = h.c.linkByName(name); err == nil {
			err = h.setVLANs(br, end.index, port)
		}
		if err != nil {
			h.dropLink(name)
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return name, err
}

func pairOf(p Plan, a Attachment, master int) pair {
	mac, _ := ParseMAC(a.MAC) // checked by Plan, or derived
	port := p.port()
	return pair{
		network: a.Network, owner: p.Owner, ifName: a.IfName,
		mac: mac, mtu: a.MTU, master: master, hairpin: port.Hairpin, isolated: port.Isolated,
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
func (bridge) Configure(in *Inside, a Attachment) error {
	if a.leftDown() {
		_, err := in.arrive(a)
		return err
	}
	return in.finish(a, 0)
}
