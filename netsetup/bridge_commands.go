package netsetup

import "net/netip"

// Commands returns what Attach and Configure do, in the words of iproute2.
func (bridge) Commands(p Plan, a Attachment) []Command {
	var s script
	port := p.port()
	wanted := gatewayAddrs(p, a.Addresses)
	if a.NewBridge {
		s.bridge(p, a, port, wanted)
	}
	s.pair(a.HostIf, pairOf(p, a, 1), a.Bridge)
	if port.filtered() {
		s.vlans(a.HostIf, port)
	}
	if port.Down {
		s.arrive(a)
		return s
	}
	return append(s, finishCommands(a, false)...)
}

// bridge is ensureBridge for one that isn't there.
func (s *script) bridge(p Plan, a Attachment, port BridgePort, wanted []netip.Prefix) {
	kind := ""
	if port.filtered() {
		kind = " vlan_filtering 1"
	}
	mtu := a.MTU
	if p.MTU != 0 {
		mtu = p.MTU
	}
	// It keeps an MTU that it was given later, and not one that it was made with.
	s.host("ip link add %s mtu %d address %s type bridge%s", word(a.Bridge), otherMTU(mtu), bridgeMAC(a.Bridge), kind)
	s.host("ip link set %s mtu %d alias %s", word(a.Bridge), mtu, word(bridgeAlias(a.Network)))
	if port.GatewayIf == "" {
		s.gateway(a.Bridge, wanted, p.Promiscuous)
		return
	}
	s.gateway(a.Bridge, nil, p.Promiscuous)
	s.gatewayIf(a, port, mtu)
	s.gateway(port.GatewayIf, wanted, false)
}

// gateway is readyGateway.
func (s *script) gateway(ifName string, wanted []netip.Prefix, promiscuous bool) {
	for _, line := range ownRoutesCommands(ifName, false) {
		s.host("%s", line)
	}
	for _, p := range wanted {
		options := ""
		if p.Addr().Is6() {
			options = " nodad"
		}
		s.host("%s", addrCommand(ifName, p, options))
	}
	if promiscuous {
		s.host("ip link set %s promisc on up", word(ifName))
		return
	}
	s.host("ip link set %s up", word(ifName))
}

// gatewayIf is makeGatewayIf and nameGatewayIf.
func (s *script) gatewayIf(a Attachment, port BridgePort, mtu int) {
	name := port.GatewayIf
	const queues = "numtxqueues 1 numrxqueues 1"
	other := gatewayPort(name)
	s.host("ip link add %s mtu %d address %s %s master %s up type veth peer name %s mtu %d address %s %s",
		word(other), mtu, bridgeMAC(other), queues, word(a.Bridge), word(name), mtu, bridgeMAC(name), queues)
	one := port
	one.Trunk = nil
	s.vlans(other, one)
	s.host("ip link set %s alias %s addrgenmode none", word(other), word(gatewayAlias(name)))
	s.host("ip link set %s alias %s", word(name), word(bridgeAlias(a.Network)))
}

// vlans is setVLANs on a bridge whose default VLAN is the kernel's.
func (s *script) vlans(port string, p BridgePort) {
	if !p.KeepDefault {
		s.host("bridge vlan del dev %s vid 1", word(port))
	}
	for _, e := range p.entries() {
		s.host("bridge vlan add dev %s vid %s", word(port), e)
	}
}
