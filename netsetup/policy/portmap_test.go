package policy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// portmap attaches the policy with keys of its own in JSON, as `"snat": false`.
func (l *lab) portmap(owner string, a *netsetup.Attachment, keys string, mappings ...netsetup.PortMapping) error {
	raw := []byte(`{"type": "portmap"` + keys + `}`)
	p := netsetup.Plan{Request: netsetup.Request{
		Network: &netsetup.Network{Name: a.Network, Source: "test", Plugins: []netsetup.Plugin{{Type: "bridge"}, {Type: "portmap", Raw: raw}}},
		Owner:   owner, Runtime: netsetup.Runtime{PortMappings: mappings},
	}}
	return l.attach(portmap{l.opt}, p, a)
}

func (l *lab) attach(pol netsetup.Policy, p netsetup.Plan, a *netsetup.Attachment) error {
	plugin := p.Network.Plugins[1]
	conf, err := pol.Plan(p, plugin)
	if err != nil {
		return err
	}
	p.Policies = []netsetup.PlannedPolicy{{Plugin: plugin, Conf: conf}}
	return l.Do(func() error {
		return pol.Attach(l.context(), l.host(), nil, p, conf, a, l.record)
	})
}

// objects are the records so far; of those whose owner is in ended, nothing.
func (l *lab) recordedBut(ended ...string) []netsetup.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.records), func(o netsetup.Object) bool { return slices.Contains(ended, o.Owner) })
}

// both are a mapping of TCP and one of UDP.
func both(host, container, count int) []netsetup.PortMapping {
	tcp := netsetup.PortMapping{HostPort: host, ContainerPort: container, Count: count, Protocol: "tcp"}
	udp := tcp
	udp.Protocol = "udp"
	return []netsetup.PortMapping{tcp, udp}
}

// reach exchanges TCP and UDP with a port of each address.
func reach(from *netsetuptest.Node, port int, to ...netip.Addr) error {
	for _, a := range to {
		for _, network := range []string{"tcp", "udp"} {
			if err := from.Exchange(network, netip.AddrPortFrom(a, uint16(port)), 1000, soon); err != nil {
				return err
			}
		}
	}
	return nil
}

// unreached fails if one of the exchanges works.
func unreached(t *testing.T, from *netsetuptest.Node, port int, to ...netip.Addr) {
	t.Helper()
	for _, a := range to {
		for _, network := range []string{"tcp", "udp"} {
			if err := from.Exchange(network, netip.AddrPortFrom(a, uint16(port)), 100, never); err == nil {
				t.Errorf("%s reaches %s %v port %d", from.Name, network, a, port)
			}
		}
	}
}

var (
	local4 = netip.MustParseAddr("127.0.0.1")
	local6 = netip.IPv6Loopback()
	gw4    = netip.MustParseAddr("10.77.0.1")
	gw6    = netip.MustParseAddr("fd77::1")
)

// From outside, from the host by each of its addresses and by its loopback, from a neighbour
// and from the container itself; with packets of bridges shown to the firewall, and without.
func TestPublishedPortIsReached(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	neighbour, na := l.container(t, "nsi0", 77, 3)
	echo := c.Echo(t)
	check(t, l.masquerade(a))
	check(t, l.masquerade(na))
	l.bridgeCalls(t, "1")
	check(t, l.portmap("web", &a, "", both(8080, int(echo.Port), 1)...))
	for _, calls := range []string{"0", "1"} {
		l.bridgeCalls(t, calls)
		check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
		check(t, reach(l.Node, 8080, l.out.HostV4, l.out.HostV6, gw4, gw6, local4))
		check(t, reach(neighbour, 8080, l.out.HostV4, l.out.HostV6, gw4, gw6))
		check(t, reach(c, 8080, l.out.HostV4, l.out.HostV6, gw4, gw6))
	}
	if seen := echo.Seen(); !slices.Contains(seen, l.out.V4) || !slices.Contains(seen, l.out.V6) {
		t.Errorf("the container doesn't see the outside's own addresses: %v", seen)
	}
	if fmt.Sprint(a.Ports) != "[8080:"+fmt.Sprint(echo.Port)+"/tcp 8080:"+fmt.Sprint(echo.Port)+"/udp]" {
		t.Errorf("ports in the attachment: %v", a.Ports)
	}
	check(t, l.undoAll())
	check(t, l.undoAll())
	unreached(t, l.out.Node, 8080, l.out.HostV4, l.out.HostV6)
	if rules := l.ruleset(t); strings.Contains(rules, "8080") || strings.Contains(rules, "10.77.0.2") {
		t.Errorf("left after undo:\n%s", rules)
	}
}

// Without snat the way in stays, and whoever would be answered past the host is not served.
func TestPublishWithoutSNAT(t *testing.T) {
	l := newLab(t)
	l.bridgeCalls(t, "0")
	c, a := l.container(t, "nsi0", 77, 2)
	neighbour, _ := l.container(t, "nsi0", 77, 3)
	echo := c.Echo(t)
	check(t, l.portmap("web", &a, `, "snat": false`, both(8080, int(echo.Port), 1)...))
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
	check(t, reach(l.Node, 8080, l.out.HostV4, l.out.HostV6))
	unreached(t, neighbour, 8080, l.out.HostV4, l.out.HostV6)
	unreached(t, l.Node, 8080, local4)
	if rules := l.ruleset(t); strings.Contains(rules, "127.0.0.0/8 . 10.77.0.2") {
		t.Errorf("hairpin elements without snat:\n%s", rules)
	}
}

// With masqAll even the outside comes with the host's address.
func TestPublishMasqAll(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := c.Echo(t)
	check(t, l.portmap("web", &a, `, "masqAll": true`, both(8080, int(echo.Port), 1)...))
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
	if got, want := echo.Seen(), []netip.Addr{gw4, gw6}; !slices.Equal(got, want) {
		t.Errorf("the container saw %v, want %v", got, want)
	}
}

// A host address publishes on that one only.
func TestPublishOnOneAddress(t *testing.T) {
	l := newLab(t)
	l.ip(t, "addr add 198.51.100.9/28 dev "+l.out.HostIf)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := c.Echo(t)
	mappings := both(8080, int(echo.Port), 1)
	for i := range mappings {
		mappings[i].HostIP = netip.MustParseAddr("198.51.100.9")
	}
	check(t, l.portmap("web", &a, "", mappings...))
	check(t, reach(l.out.Node, 8080, netip.MustParseAddr("198.51.100.9")))
	unreached(t, l.out.Node, 8080, l.out.HostV4, l.out.HostV6)
	unreached(t, l.Node, 8080, local4)
	// Another container may have the port of another address.
	_, b := l.container(t, "nsi0", 77, 3)
	mappings[0].HostIP = l.out.HostV4
	check(t, l.portmap("other", &b, "", mappings[0]))
	mappings[0].HostIP = netip.Addr{}
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.recordedBut(), nil }
	if err := l.portmap("third", &b, "", mappings[0]); err == nil || !strings.Contains(err.Error(), "has it") {
		t.Errorf("all addresses after one of them: %v", err)
	}
}

// A range whose numbers stay is one element; one whose numbers change works too.
func TestPublishRange(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := c.Echo(t)
	low := int(echo.Port) - 50
	check(t, l.portmap("same", &a, "", both(low, low, 100)...))
	check(t, reach(l.out.Node, int(echo.Port), l.out.HostV4, l.out.HostV6))
	if got := strings.Count(l.ruleset(t), fmt.Sprintf("%d-%d", low, low+99)); got != 4 {
		t.Errorf("%d elements for two ranges of two families:\n%s", got, l.ruleset(t))
	}
	_, b := l.container(t, "nsi0", 77, 3)
	_ = b
	check(t, l.portmap("moved", &a, "", both(2000, int(echo.Port)-3, 10)...))
	check(t, reach(l.out.Node, 2003, l.out.HostV4, l.out.HostV6))
	unreached(t, l.out.Node, 2010, l.out.HostV4)
}

// CNI has no ranges: a runtime lists all ports, which are one range again.
func TestListedPortsBecomeARange(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	var list []string
	for i := range 300 {
		list = append(list, fmt.Sprintf(`{"hostPort": %d, "containerPort": %d, "protocol": "TCP", "hostIP": ""}`, 3000+i, 3000+i))
	}
	check(t, l.portmap("web", &a, `, "runtimeConfig": {"portMappings": [`+strings.Join(list, ",")+`]}`))
	if rules := l.ruleset(t); strings.Count(rules, "3000-3299") != 2 || strings.Contains(rules, "3001") {
		t.Errorf("300 ports are not one range:\n%s", rules)
	}
}

func TestPointToPointPublishes(t *testing.T) {
	l := newLab(t)
	l.ip(t, "netns add p")
	l.ip(t, "link add ptp0 type veth peer name eth0 netns p")
	l.ip(t, "addr add 10.79.0.1/32 dev ptp0")
	l.ip(t, "link set ptp0 up")
	l.ip(t, "route add 10.79.0.2/32 dev ptp0")
	l.ip(t, "-n p addr add 10.79.0.2/24 dev eth0")
	l.ip(t, "-n p link set eth0 up")
	l.ip(t, "-n p route add default via 10.79.0.1")
	p := l.Named(t, "p")
	pa := netsetup.Attachment{Network: "p2p", Strategy: "ptp", HostIf: "ptp0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.79.0.2/24")}}
	echo := p.Echo(t)
	check(t, l.portmap("p", &pa, "", both(8080, int(echo.Port), 1)...))
	check(t, reach(l.out.Node, 8080, l.out.HostV4))
	check(t, reach(l.Node, 8080, l.out.HostV4, local4))
	check(t, reach(p, 8080, l.out.HostV4))
	l.wantUndone(t, "ptp0", "8080")
}

// Datagrams that go on all the time must find a container that comes later.
func TestOldFlowsFindTheContainer(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := c.Echo(t)
	var conn net.Conn
	check(t, l.out.Do(func() (err error) {
		conn, err = net.Dial("udp", netip.AddrPortFrom(l.out.HostV4, 8080).String())
		return err
	}))
	defer conn.Close()
	_, _ = conn.Write([]byte("before"))
	check(t, l.portmap("web", &a, "", both(8080, int(echo.Port), 1)...))
	buf := make([]byte, 10)
	check(t, netsetuptest.Retry(soon, func() error {
		_, _ = conn.Write([]byte("after"))
		return read(conn, buf)
	}))
}

func TestBusyPortIsFound(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.recordedBut(), nil }
	_, a := l.container(t, "nsi0", 77, 2)
	_, b := l.container(t, "nsi0", 77, 3)
	check(t, l.portmap("web", &a, "", netsetup.PortMapping{HostPort: 8000, ContainerPort: 80, Count: 11, Protocol: "tcp"}))
	var program net.Listener
	check(t, l.Do(func() (err error) {
		program, err = net.Listen("tcp", "198.51.100.1:9000")
		return err
	}))
	defer program.Close()
	before := l.ruleset(t)
	for _, tt := range []struct {
		m    netsetup.PortMapping
		want string
	}{
		{netsetup.PortMapping{HostPort: 8005, Protocol: "tcp"}, `host port *:8005/tcp: container "web" has it`},
		{netsetup.PortMapping{HostPort: 7990, Count: 100, Protocol: "tcp"}, `container "web" has it (0.0.0.0:8000-8010/tcp)`},
		{netsetup.PortMapping{HostPort: 8010, Protocol: "tcp", HostIP: local4}, `container "web" has it`},
		{netsetup.PortMapping{HostPort: 9000, Protocol: "tcp"}, `host port *:9000/tcp: another program has it`},
		{netsetup.PortMapping{HostPort: 8990, Count: 20, Protocol: "tcp"}, `host port *:9000/tcp: another program has it`},
		{netsetup.PortMapping{HostPort: 8005, Protocol: "udp"}, ""},
		{netsetup.PortMapping{HostPort: 9000, Protocol: "tcp", HostIP: local4}, ""},
		{netsetup.PortMapping{HostPort: 9000, Protocol: "tcp", HostIP: local6}, ""},
		{netsetup.PortMapping{HostPort: 9000, Protocol: "sctp"}, ""},
		{netsetup.PortMapping{HostPort: 8006, Protocol: "tcp", HostIP: netip.MustParseAddr("192.0.2.77")}, `container "web" has it`},
		{netsetup.PortMapping{HostPort: 8099, Protocol: "tcp", HostIP: netip.MustParseAddr("192.0.2.77")}, ""}, // no address of the host yet
	} {
		tt.m.ContainerPort = 80
		err := l.portmap("db", &b, "", tt.m)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v: %v, want %q", tt.m, err, tt.want)
		}
		if tt.want != "" && l.ruleset(t) != before {
			t.Errorf("%v: refused, and still changed the table", tt.m)
		}
		if tt.want == "" {
			before = l.ruleset(t)
		}
	}
	check(t, l.portmap("web", &a, "", netsetup.PortMapping{HostPort: 8000, ContainerPort: 80, Count: 11, Protocol: "tcp"})) // again
}

// A host port that is left open is one that nobody has.
func TestChosenPorts(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := c.Echo(t)
	seen := map[int]bool{}
	for i := range 10 {
		check(t, l.portmap(fmt.Sprint("c", i), &a, "", netsetup.PortMapping{ContainerPort: int(echo.Port), Protocol: "tcp", Count: 2}))
		port := a.Ports[0].HostPort
		if port < firstFree || seen[port] || seen[port+1] {
			t.Errorf("port %d was chosen, of %v", port, seen)
		}
		seen[port], seen[port+1] = true, true
		check(t, l.out.Exchange("tcp", netip.AddrPortFrom(l.out.HostV4, uint16(port)), 100, soon))
	}
}

// Whoever starts at once gets different ports, or is told; the table is made once.
func TestEightPublishersAtOnce(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.recordedBut(), nil }
	var echoes []*netsetuptest.Echo
	var attachments []netsetup.Attachment
	for i := range 8 {
		c, a := l.container(t, "nsi0", 77, 2+i)
		echoes, attachments = append(echoes, c.Echo(t)), append(attachments, a)
	}
	var wg sync.WaitGroup
	errs, same := make([]error, 8), make([]error, 8)
	for i := range attachments {
		wg.Go(func() {
			errs[i] = l.portmap(fmt.Sprint("c", i), &attachments[i], "", both(8000+i, int(echoes[i].Port), 1)...)
			other := attachments[i]
			same[i] = l.portmap(fmt.Sprint("c", i), &other, "", netsetup.PortMapping{HostPort: 9999, ContainerPort: 80, Protocol: "tcp"})
		})
	}
	wg.Wait()
	won := 0
	for i := range errs {
		check(t, errs[i])
		check(t, reach(l.out.Node, 8000+i, l.out.HostV4, l.out.HostV6))
		if same[i] == nil {
			won++
		} else if !strings.Contains(same[i].Error(), "has it") {
			t.Error(same[i])
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 got the same port: %v", won, same)
	}
	check(t, l.undoAll())
	if rules := l.ruleset(t); strings.Contains(rules, "tcp . 800") || strings.Contains(rules, "tcp . 9999") {
		t.Errorf("left:\n%s", rules)
	}
}

// A flush of the ruleset takes all away; the records bring it back, but not for who has ended.
func TestReload(t *testing.T) {
	l := newLab(t)
	var ended []string
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.recordedBut(ended...), nil }
	c, a := l.container(t, "nsi0", 77, 2)
	_, b := l.container(t, "nsi0", 77, 3)
	echo := c.Echo(t)
	check(t, l.masquerade(a))
	check(t, l.portmap("web", &a, "", both(8080, int(echo.Port), 1)...))
	before := zeroCounters(l.ruleset(t))
	check(t, l.portmap("gone", &b, "", both(9000, 80, 20)...))
	ended = []string{"gone"}
	reload := func() {
		t.Helper()
		check(t, l.Do(func() error { return Reload(t.Context(), nil, l.opt) }))
	}
	l.Run(t, "nft", "flush", "ruleset").OK(t)
	unreached(t, l.out.Node, 8080, l.out.HostV4)
	reload()
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
	check(t, reach(l.Node, 8080, local4))
	check(t, c.Ping(l.out.V4, 56, soon))
	if got := zeroCounters(l.ruleset(t)); got != before {
		t.Errorf("after the reload:\n%s\nbefore:\n%s", got, before)
	}
	reload()
	if got := zeroCounters(l.ruleset(t)); got != before {
		t.Errorf("a second reload changed the table:\n%s", got)
	}
	// What was printed can be read again, as distributions' services do.
	l.Run(t, "sh", "-c", "nft list ruleset > /run/rules && nft flush ruleset && nft -f /run/rules").OK(t)
	check(t, reach(l.out.Node, 8080, l.out.HostV4, l.out.HostV6))
}

// One that ends while its record is being put back leaves nothing.
func TestReloadBesideAnEnd(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.portmap("web", &a, "", both(8080, 80, 1)...))
	all := l.recordedBut()
	reads := 0
	l.opt.Recorded = func() ([]netsetup.Object, error) {
		if reads++; reads > 1 {
			return nil, nil
		}
		for _, o := range all { // ends between the reading and the table
			check(t, Undo(t.Context(), o))
		}
		return all, nil
	}
	check(t, l.Do(func() error { return Reload(t.Context(), nil, l.opt) }))
	if rules := l.ruleset(t); strings.Contains(rules, "8080") {
		t.Errorf("left of a container that ended:\n%s", rules)
	}
}

func TestPortmapCheck(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	mappings := both(8080, 80, 1)
	check(t, l.portmap("web", &a, "", mappings...))
	differences := func() (diffs []netsetup.Difference) {
		pub := &publication{PortmapConf: netsetup.PortmapConf{Mappings: mappings}}
		check(t, l.Do(func() (err error) {
			diffs, err = portmap{}.Check(t.Context(), nil, nil, netsetup.Plan{}, pub, a)
			return err
		}))
		return diffs
	}
	if d := differences(); len(d) > 0 {
		t.Errorf("differences at once: %v", d)
	}
	l.Run(t, "nft", "delete element inet nsinit ports4 { 0.0.0.0-255.255.255.255 . tcp . 8080 }").OK(t)
	if d := fmt.Sprint(differences()); d != "[table inet nsinit: want *:8080/tcp>10.77.0.2:80, the kernel has none]" {
		t.Errorf("after one went: %s", d)
	}
}
