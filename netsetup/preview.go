package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Preview returns what Attach would, as far as it can be told without doing anything: names
// that are random by design are others each time. h is asked for devices only. first are the
// commands that come before those of the strategy: what a bridge that is there lacks.
func Preview(h *Host, p Plan, addrs []netip.Prefix, gateways []netip.Addr) (a Attachment, first []Command, err error) {
	if a, err = p.attachment(slices.Clone(addrs), slices.Clone(gateways)); err != nil {
		return a, nil, err
	}
	switch p.Strategy {
	case "bridge":
		first, err = h.previewBridge(p, &a)
	case "ptp":
		err = h.previewPtp(p, &a)
	case "macvlan", "ipvlan", "vlan":
		err = h.previewSublink(p, &a)
	case "dummy":
		a.MTU = p.MTU
	case "tap":
		own, _ := p.Own.(tapConf)
		a.MTU, a.Tap = p.MTU, &own.Tap
	case "host-device":
		err = h.previewHostDevice(p, &a)
	case "net-device":
		err = h.previewNetDevice(p, &a)
	case "loopback":
		a = Attachment{Network: p.networkName(), Strategy: p.Strategy, IfName: loopbackIfName, MTU: p.MTU}
	}
	if err == nil {
		err = a.checkMTU()
	}
	return a, first, err
}

// AfterDefaults gives the default routes of a the metrics that they get in a container that has
// others, as many as before has gateways of the family (addDefault).
func (a *Attachment) AfterDefaults(before []netip.Addr) {
	var kept []netip.Addr
	for _, gw := range a.Gateways {
		n := 0
		for _, b := range before {
			if b.Is4() == gw.Is4() {
				n++
			}
		}
		if n == 0 {
			kept = append(kept, gw)
			continue
		}
		base := metricSecond
		if gw.Is6() {
			base = metricIPv6
		}
		a.Routes = append(a.Routes, Route{Dst: defaultRoute(gw), Gateway: gw, Metric: base + n})
	}
	a.Gateways = kept
}

func (h *Host) previewBridge(p Plan, a *Attachment) (first []Command, err error) {
	br, err := h.c.linkByName(p.Bridge)
	switch {
	case errors.Is(err, unix.ENODEV):
		a.NewBridge = true
		if br.mtu, err = h.bridgeMTU(p); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case br.kind != "bridge":
		return nil, fmt.Errorf("%s: not a bridge but %s; give the network another name for its bridge", p.Bridge, kindOf(br))
	}
	if a.Bridge, a.MTU = p.Bridge, p.MTU; a.MTU == 0 {
		a.MTU = br.mtu
	}
	if port := p.port(); !port.plain() {
		a.Port = &port
	}
	a.HostIf = hostIfName()
	if !a.NewBridge && p.port().GatewayIf == "" {
		return h.previewReady(br, p, *a)
	}
	return nil, nil
}

// previewReady is readyGateway for a bridge that is there.
func (h *Host) previewReady(br link, p Plan, a Attachment) (first []Command, err error) {
	wanted := gatewayAddrs(p, a.Addresses)
	have, err := h.c.addrs(br.index)
	if err != nil {
		return nil, err
	}
	var s, late script
	for _, want := range wanted {
		if !slices.ContainsFunc(have, func(a ifaddr) bool { return a.prefix == want }) {
			options := ""
			if want.Addr().Is6() {
				options = " nodad"
			}
			late.host("%s", addrCommand(br.name, want, options))
		}
		for _, old := range have {
			switch {
			case !inTheWay(old.prefix, want, wanted):
			case !p.ForceAddress:
				return nil, fmt.Errorf("%s: has address %s, and the network's gateway is %s; set forceAddress to replace it, or name another bridge", br.name, old.prefix, want)
			default:
				s.host("ip addr del %s dev %s", old.prefix, word(br.name))
			}
		}
	}
	ours, ready := br.alias == bridgeAlias(p.networkName()), br.up() && len(late) == 0
	if (!ours || !ready) && (p.Gateway || !br.up()) {
		for _, line := range ownRoutesCommands(br.name, !ours && br.up()) {
			s.host("%s", line)
		}
	}
	s = append(s, late...)
	switch {
	case p.Promiscuous && br.flags&unix.IFF_PROMISC == 0:
		s.host("ip link set %s promisc on up", word(br.name))
	case !br.up():
		s.host("ip link set %s up", word(br.name))
	}
	return s, nil
}

func (h *Host) previewPtp(p Plan, a *Attachment) (err error) {
	a.Routes = slices.Concat(ptpRoutes(p, a.Addresses), a.Routes)
	if a.MTU = p.MTU; a.MTU == 0 {
		a.MTU, err = h.uplinkMTU()
	}
	a.HostIf = hostIfName()
	return err
}

func (h *Host) previewSublink(p Plan, a *Attachment) error {
	var own sublinkConf
	mine := &Sublink{}
	switch conf := p.Own.(type) {
	case macvlanConf:
		own, mine.Mode, mine.Queue = conf.sublinkConf, conf.mode, conf.queue
	case ipvlanConf:
		own, mine.Mode = conf.sublinkConf, conf.mode
	case vlanConf:
		own, mine.VLAN = conf.sublinkConf, conf.id
	}
	a.Sublink = mine
	if mine.Parent, mine.Inside = own.master, own.inside; own.inside {
		a.MTU = p.MTU // its parent's namespace isn't there yet
		if p.Strategy != "macvlan" {
			a.MAC = p.MAC
		}
		return nil
	}
	return h.onParent(nil, p, own, func(_ *Host, parent link) error {
		mine.Parent = parent.name
		if a.MAC = p.MAC; p.Strategy == "macvlan" && a.MAC == "" {
			a.MAC = deriveMAC(a.Addresses).String()
		}
		if a.MAC == "" {
			a.MAC = parent.mac.String()
		}
		return a.sublinkMTU(p, parent)
	})
}

func (h *Host) previewHostDevice(p Plan, a *Attachment) error {
	conf, _ := p.Own.(hostDeviceConf)
	want, err := conf.want.byID(sysfs, p.Runtime.DeviceID)
	if err != nil {
		return err
	}
	if conf.dpdk, err = conf.driven(want); err != nil || conf.dpdk {
		a.MAC, a.Configured = "", true
		return err
	}
	dev, err := h.find(sysfs, want)
	if err != nil {
		return err
	}
	a.lent(p, deviceState{Name: dev.name, MAC: dev.mac, MTU: dev.mtu})
	return nil
}

// previewNetDevice takes the first number for a name that is to get one.
func (h *Host) previewNetDevice(p Plan, a *Attachment) error {
	dev, err := h.c.linkByAnyName(p.Device)
	if err != nil {
		return err
	}
	was := deviceState{Name: dev.name, MAC: dev.mac, MTU: dev.mtu}
	if was.Addresses, err = h.c.addrMessages(dev.index); err != nil {
		return fmt.Errorf("%s: list addresses: %w", dev.name, err)
	}
	a.IfName = strings.Replace(p.IfName, "%d", "0", 1)
	a.lent(p, was)
	a.Kept, a.Addresses = keptAddresses(was.Addresses)
	return nil
}

// Preview adds to a what Attach would: a name that is random by design.
func (bandwidth) Preview(_ Plan, conf any, a *Attachment) {
	if s, ok := conf.(*shaping); ok && s.EgressRate > 0 {
		a.IFB = hostIfName()
	}
}

// Preview adds to a what Attach would.
func (tuning) Preview(_ Plan, conf any, a *Attachment) {
	if t, ok := conf.(*Tuning); ok {
		mine := t.of(a.IfName)
		if a.Tuning = a.Tuning.with(mine); mine.MAC != "" {
			a.MAC = mine.MAC
		}
	}
}
