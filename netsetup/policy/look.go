package policy

// ForwardingState is what the host says of forwarding, in the namespace of the calling thread.
type ForwardingState struct {
	IPv4, IPv6 bool     // the family's switch for the whole host
	Force      bool     // the kernel can forward IPv6 for single devices (6.17)
	Advertised []string // devices with routes that router advertisements brought
	Losing     []string // of those, the ones that ignore advertisements, so that the routes will expire
	BrNf       bool     // bridged packets pass iptables' and nftables' forward hooks
}

// LookForwarding asks the host.
func LookForwarding() (s ForwardingState, err error) {
	rt, err := openRoutes()
	if err != nil {
		return s, err
	}
	defer rt.Close()
	s.IPv4, s.IPv6 = forwardsAll(4), forwardsAll(6)
	s.Force = !force6("default").missing()
	s.BrNf = sysctl("bridge/bridge-nf-call-iptables").is("1")
	if s.Advertised, err = rt.advertised(); err != nil {
		return s, err
	}
	for _, name := range s.Advertised {
		if acceptRA(name).is("1") && forwarding6(name).is("1") {
			s.Losing = append(s.Losing, name)
		}
	}
	return s, nil
}
