package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// firewall attaches the policy with keys of its own in JSON, as `, "ingressPolicy": "isolated"`.
func (l *lab) firewall(a *netsetup.Attachment, keys string) error {
	return l.attach(firewall{l.opt}, firewallPlan(a.Network, keys), a)
}

func firewallPlan(network, keys string) netsetup.Plan {
	raw := []byte(`{"type": "firewall"` + keys + `}`)
	return netsetup.Plan{Request: netsetup.Request{
		Network: &netsetup.Network{Name: network, Source: "test", Plugins: []netsetup.Plugin{{Type: "bridge"}, {Type: "firewall", Raw: raw}}},
		Owner:   "owner",
	}}
}

// twoNetworks are two containers on one bridge and one on another, all let out.
func twoNetworks(t *testing.T, keys, otherKeys string) (l *lab, c, same, other guardedNode) {
	t.Helper()
	l = newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.recordedBut(), nil }
	l.ip(t, "link add nsi1 type bridge")
	l.ip(t, "addr add 10.78.0.1/24 dev nsi1")
	l.ip(t, "addr add fd78::1/64 dev nsi1 nodad")
	l.ip(t, "link set nsi1 up")
	add := func(bridge string, network, host int, keys string) guardedNode {
		n, a := l.container(t, bridge, network, host)
		check(t, l.masquerade(a))
		check(t, l.firewall(&a, keys))
		return guardedNode{n, a, n.Echo(t)}
	}
	return l, add("nsi0", 77, 2, keys), add("nsi0", 77, 3, keys), add("nsi1", 78, 2, otherKeys)
}

type guardedNode struct {
	*netsetuptest.Node
	a    netsetup.Attachment
	echo *netsetuptest.Echo
}

func (n guardedNode) addrs() []netip.Addr {
	return []netip.Addr{n.a.Addresses[0].Addr(), n.a.Addresses[1].Addr()}
}

func reachable(t *testing.T, from *netsetuptest.Node, to guardedNode) {
	t.Helper()
	check(t, reach(from, int(to.echo.Port), to.addrs()...))
}

func unreachable(t *testing.T, from *netsetuptest.Node, to guardedNode) {
	t.Helper()
	unreached(t, from, int(to.echo.Port), to.addrs()...)
}

func TestIngressOpen(t *testing.T) {
	l, c, same, other := twoNetworks(t, "", `, "backend": "iptables"`)
	reachable(t, c.Node, same)
	reachable(t, c.Node, other)
	reachable(t, l.Node, c)
	check(t, c.Ping(l.out.V4, 56, soon))
}

// Networks with a policy don't reach each other, but their own, the host and the outside.
func TestIngressSameBridge(t *testing.T) {
	l, c, same, other := twoNetworks(t, `, "ingressPolicy": "same-bridge"`, `, "ingressPolicy": "same-bridge"`)
	for _, calls := range []string{"1", "0"} {
		l.bridgeCalls(t, calls)
		reachable(t, c.Node, same)
	}
	unreachable(t, c.Node, other)
	unreachable(t, other.Node, c)
	reachable(t, l.Node, c)
	check(t, c.Ping(l.out.V4, 56, soon))
	check(t, c.Ping(l.out.V6, 56, soon))
	// Nor by way of a published port.
	check(t, l.portmap("web", &other.a, "", both(8080, int(other.echo.Port), 1)...))
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
	unreached(t, c.Node, 8080, l.out.HostV4, l.out.HostV6)
	// A flush takes the policy away, and a reload brings it back.
	l.Run(t, "nft", "flush", "ruleset").OK(t)
	check(t, l.Do(func() error { return Reload(t.Context(), nil, l.opt) }))
	unreachable(t, c.Node, other)
}

// As the plugin has it, a network without a policy is not kept from one with it.
func TestIngressPolicyBesideNone(t *testing.T) {
	_, c, _, other := twoNetworks(t, "", `, "ingressPolicy": "same-bridge"`)
	reachable(t, c.Node, other)
	reachable(t, other.Node, c)
}

// Isolated containers don't reach their neighbours either, whether or not packets of bridges are
// shown to the firewall.
func TestIngressIsolated(t *testing.T) {
	l, c, same, other := twoNetworks(t, `, "ingressPolicy": "isolated"`, `, "ingressPolicy": "same-bridge"`)
	for _, calls := range []string{"1", "0"} {
		l.bridgeCalls(t, calls)
		unreachable(t, c.Node, same)
	}
	unreachable(t, c.Node, other)
	reachable(t, l.Node, c)
	check(t, c.Ping(l.out.V4, 56, soon))
	check(t, l.portmap("web", &same.a, "", both(8080, int(same.echo.Port), 1)...))
	unreached(t, c.Node, 8080, l.out.HostV4, l.out.HostV6)
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
}

// The administrator's chain is asked before nsinit's rules let through, and its rules stay.
func TestAdminChain(t *testing.T) {
	l, c, _, other := twoNetworks(t, `, "iptablesAdminChainName": "my-rules"`, "")
	reachable(t, c.Node, other)
	l.Run(t, "nft", "add rule inet nsinit my-rules ip daddr 10.78.0.2 drop").OK(t)
	l.Run(t, "nft", "add rule inet nsinit CNI-ADMIN ip6 saddr fd77::3 drop").OK(t)
	unreached(t, c.Node, int(other.echo.Port), other.addrs()[0])
	check(t, reach(c.Node, int(other.echo.Port), other.addrs()[1]))
	_, a := l.container(t, "nsi0", 77, 9)
	check(t, l.firewall(&a, `, "iptablesAdminChainName": "my-rules"`))
	check(t, l.Do(func() error { return Reload(t.Context(), nil, l.opt) }))
	if rules := l.ruleset(t); strings.Count(rules, "10.78.0.2 drop") != 1 || strings.Count(rules, "fd77::3 drop") != 1 {
		t.Errorf("the administrator's rules are gone:\n%s", rules)
	}
	check(t, l.firewall(&a, `, "iptablesAdminChainName": "other-rules"`)) // the network's file was changed
	if rules := l.ruleset(t); !strings.Contains(rules, `"nsi0" : jump other-rules`) {
		t.Errorf("the chain was not changed:\n%s", rules)
	}
}

func TestFirewallUndo(t *testing.T) {
	l, c, _, _ := twoNetworks(t, `, "ingressPolicy": "isolated"`, "")
	a := netsetup.Attachment{Network: "p2p", Strategy: "ptp", HostIf: "ptp9", Addresses: c.a.Addresses}
	check(t, l.firewall(&a, `, "ingressPolicy": "isolated"`))
	if rules := l.ruleset(t); strings.Count(rules, `"ptp9"`) < 5 {
		t.Errorf("not there:\n%s", rules)
	}
	check(t, l.undoAll())
	check(t, l.undoAll())
	if rules := l.ruleset(t); strings.Contains(rules, "ptp9") || !strings.Contains(rules, `"nsi0" . "nsi0"`) {
		t.Errorf("after undo:\n%s", rules)
	}
}

func TestFirewallFaults(t *testing.T) {
	t.Parallel()
	for keys, want := range map[string]string{
		`, "backend": "iptabels"`:                   `plugins[1].backend: "iptabels": unknown`,
		`, "backend": "firewalld"`:                  "",
		`, "firewalldZone": "dmz"`:                  `plugins[1].firewalldZone: "dmz": nsinit puts nothing`,
		`, "ingressPolicy": "closed"`:               `plugins[1].ingressPolicy: "closed": unknown`,
		`, "iptablesAdminChainName": "a b"`:         `plugins[1].iptablesAdminChainName: "a b": letters`,
		`, "iptablesAdminChainName": "forward"`:     "a chain of nsinit's own",
		`, "ingresPolicy": "open"`:                  "plugins[1].ingresPolicy: unknown key; did you mean ingressPolicy?",
		`, "capabilities": {}, "ingressPolicy": ""`: "",
		`, "backend": 7`:                            "plugins[1].backend: a number; a string is wanted",
	} {
		p := firewallPlan("lan", keys)
		_, err := firewall{}.Plan(p, p.Network.Plugins[1])
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", keys, err, want)
		}
	}
}

// What Commands says, an empty namespace does.
func TestCommandsPublish(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	neighbour, _ := l.container(t, "nsi0", 77, 3)
	echo := c.Echo(t)
	l.bridgeCalls(t, "0")
	pub := &publication{PortmapConf: netsetup.PortmapConf{Mappings: append(both(8080, int(echo.Port), 1), both(int(echo.Port), int(echo.Port), 2)...)}}
	commands := portmap{}.Commands(netsetup.Plan{}, pub, a)
	commands = append(commands, firewall{}.Commands(netsetup.Plan{}, &netsetup.FirewallConf{Ingress: "isolated", AdminChain: "CNI-ADMIN"}, a)...)
	commands = append([]netsetup.Command{makeCommand("inet", inetText)}, commands...)
	for _, line := range commands {
		l.Run(t, "sh", "-ec", line.Line).OK(t)
	}
	l.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1").OK(t)
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
	check(t, reach(l.out.Node, int(echo.Port), l.out.HostV4, l.out.HostV6))
	check(t, reach(l.Node, 8080, local4))
	unreached(t, neighbour, 8080, l.out.HostV4)
}
