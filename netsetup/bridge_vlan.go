package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// filterVLANs sees to it that br keeps VLANs apart. One of the site's that doesn't is
// refused: the CNI plugin goes on with it, and separates nothing.
func (h *Host) filterVLANs(br link) (link, error) {
	if br.filtering {
		return br, nil
	}
	if !strings.HasPrefix(br.alias, aliasPrefix) {
		return br, fmt.Errorf("%s: VLAN filtering is off, so that vlan and vlanTrunk separate nothing; `ip link set %s type bridge vlan_filtering 1`, or give the network another bridge", br.name, br.name)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(1))
	if err := h.c.setLink(ifinfo(br.index, 0, 0), info); err != nil {
		return br, fmt.Errorf("%s: switch VLAN filtering on: %w", br.name, noFiltering(err))
	}
	return h.c.linkByName(br.name)
}

func noFiltering(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the kernel has no VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING), which vlan and vlanTrunk need: %w", err)
	}
	return err
}

// ensureGatewayIf makes the device that carries the gateway's addresses in the port's
// VLAN: one end of a pair, whose other end is a port of br in that VLAN. One that is
// there by somebody else, as a vlan device, serves as well. Every request here may be
// made twice, as for the bridge.
func (h *Host) ensureGatewayIf(br link, p Plan, wanted []netip.Prefix, record Recorder) error {
	port := p.port()
	l, err := h.c.linkByName(port.GatewayIf)
	if errors.Is(err, unix.ENODEV) {
		l, err = h.makeGatewayIf(br, p, record)
	}
	if err == nil && unnamed(l) {
		err = h.nameGatewayIf(br, l, p)
	}
	if err == nil {
		err = h.readyGateway(l, p, wanted)
	}
	if err != nil {
		return fmt.Errorf("%s: gateway's device: %w", port.GatewayIf, err)
	}
	return nil
}

func (h *Host) makeGatewayIf(br link, p Plan, record Recorder) (link, error) {
	name := p.port().GatewayIf
	if err := record(Object{Kind: "link", Network: p.networkName(), Name: name}); err != nil {
		return link{}, err
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, attr := range append(endAttrs(name, br.mtu), nl.NewRtAttr(unix.IFLA_ADDRESS, bridgeMAC(name))) {
		peer.AddChild(attr)
	}
	request := []nl.NetlinkRequestData{
		ifinfo(0, unix.IFF_UP, unix.IFF_UP), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.index))), info,
	}
	port := gatewayPort(name)
	for _, attr := range append(endAttrs(port, br.mtu), nl.NewRtAttr(unix.IFLA_ADDRESS, bridgeMAC(port))) {
		request = append(request, attr)
	}
	if err := h.c.addLink(request...); err != nil && !errors.Is(err, unix.EEXIST) { // EEXIST: another starter
		return link{}, fmt.Errorf("make: %w", err)
	}
	return h.c.linkByName(name)
}

// nameGatewayIf finishes a pair: the bridge's end first, then the alias of the other,
// by which it is known to be finished.
func (h *Host) nameGatewayIf(br, l link, p Plan) error {
	alias := func(name string) *nl.RtAttr {
		return nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(name))
	}
	port := p.port()
	port.Trunk = nil // the gateway is in one VLAN
	if err := h.setVLANs(br, l.peer, port); err != nil {
		return err
	}
	mark := gatewayAlias(l.name)
	err := h.c.setLink(ifinfo(l.peer, 0, 0), alias(mark), noLinkLocal())
	if errors.Is(err, unix.EAFNOSUPPORT) { // no IPv6
		err = h.c.setLink(ifinfo(l.peer, 0, 0), alias(mark))
	}
	if err == nil {
		err = h.c.setLink(ifinfo(l.index, 0, 0), alias(bridgeAlias(p.networkName())))
	}
	if err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	return nil
}

// gatewayPort names the bridge's end of a gateway's pair.
func gatewayPort(name string) string { return "nsi-" + shortHash(name) }

// gatewayAlias marks the bridge's end of a gateway's pair, which goes with the bridge.
func gatewayAlias(name string) string { return aliasPrefix + "gateway " + name }

// dropGatewayIfs removes those of br's ports that lead to gateways of ours.
func (h *Host) dropGatewayIfs(br link, ports *[]link) error {
	ours := gatewayAlias(br.name + ".")
	for _, port := range *ports {
		if !strings.HasPrefix(port.alias, ours) {
			continue
		}
		if err := h.c.delLink(port.index); err != nil {
			return fmt.Errorf("%s: delete: %w", port.name, err)
		}
	}
	*ports = slices.DeleteFunc(*ports, func(l link) bool { return strings.HasPrefix(l.alias, ours) })
	return nil
}
