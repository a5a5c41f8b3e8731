package netsetup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const limits = `{"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 160000, "egressRate": 4000000, "egressBurst": 160000}`

func TestBandwidth(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, BandwidthPolicy(), bridgeNet, limits)
	var records []Object
	a := c.attachChained(t, host, p, lanAddrs(2), func(o Object) error { records = append(records, o); return nil })
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	// The records are the bridge and the device that doesn't die with the container.
	wantEqual(t, "records", fmt.Sprintln(len(records), records[len(records)-1].Kind, records[len(records)-1].Name == a.IFB), "2 ifb true\n")
	tc := host.Run(t, "tc", "qdisc").OK(t).Stdout
	for _, want := range []string{
		"tbf 1: dev " + a.HostIf + " root refcnt 2 rate 8Mbit burst 20000b lat 25ms",
		"tbf 1: dev " + a.IFB + " root refcnt 2 rate 4Mbit burst 20000b lat 25ms",
		"ingress ffff: dev " + a.HostIf + " parent ffff:fff1",
	} {
		if !strings.Contains(tc, want) {
			t.Errorf("no %q in\n%s", want, tc)
		}
	}
	filter := host.Run(t, "tc", "filter", "show", "dev", a.HostIf, "ingress").OK(t).Stdout
	for _, want := range []string{"protocol all pref 1 u32", "flowid 1:1", "match 00000000/00000000 at 0", "mirred (Egress Redirect to device " + a.IFB + ") stolen"} {
		if !strings.Contains(filter, want) {
			t.Errorf("no %q in\n%s", want, filter)
		}
	}
	ifb := host.Link(t, a.IFB)
	wantEqual(t, "ifb", fmt.Sprintln(ifb.LinkInfo.Kind, ifb.MTU, ifb.Up(), ifb.Alias), "ifb 1500 true nsinit web eth0 of lan\n")
	wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")
	a.HostIf = "" // as behind another's plugin
	wantEqual(t, "differences without the name", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")

	wantRate(t, host.Node, c.Node, "10.1.0.2", 1e6)
	wantRate(t, c.Node, host.Node, "10.1.0.1", 5e5)
	wantRate(t, c.Node, host.Node, "fd00:1::1", 5e5)

	undo(t, host, records[1:])
	for _, l := range host.Links(t) {
		if l.LinkInfo.Kind == "ifb" {
			t.Errorf("%s is left", l.IfName)
		}
	}
	if got := fmt.Sprint(c.checkPolicy(t, host, p, a)); !strings.Contains(got, "redirected") {
		t.Errorf("differences: %s", got)
	}
}

func TestBandwidthDifferences(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	p := planChained(t, BandwidthPolicy(), bridgeNet, limits)
	a := c.startChained(t, host, p, lanAddrs(2))
	for _, change := range []struct{ command, want string }{
		{"tc qdisc replace dev " + a.IFB + " root handle 1: tbf rate 1mbit burst 20000 latency 25ms", a.IFB + ": queue: want tbf rate 500000 B/s"},
		{"tc qdisc del dev " + a.HostIf + " root", a.HostIf + ": queue: want tbf rate 1000000 B/s, burst 312500 ticks, limit 45000 B, the kernel has noqueue"},
		{"tc qdisc del dev " + a.HostIf + " ingress", "what comes in: want redirected, the kernel has not redirected"},
		{"ip link del " + a.HostIf, a.HostIf + ": want a device, the kernel has none"},
	} {
		host.Run(t, "sh", "-c", change.command).OK(t)
		if got := fmt.Sprint(c.checkPolicy(t, host, p, a)); !strings.Contains(got, change.want) {
			t.Errorf("after %s: %s", change.command, got)
		}
	}
	host.Run(t, "ip", "link", "del", a.IFB).OK(t)
}

// TestBandwidthSubnets has only what goes to and comes from some subnets limited.
func TestBandwidthSubnets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		key            string
		free4, limited string
	}{
		{`"unshapedSubnets": ["10.9.0.0/21", "fd00:9::/61"]`, "10.9.3.1", "10.1.0.1"},
		{`"shapedSubnets": ["10.9.0.0/21", "fd00:9::/61"]`, "10.1.0.1", "10.9.3.1"},
	} {
		host := netsetuptest.NewHost(t)
		c := newContainer(t, host, "web")
		p := planChained(t, BandwidthPolicy(), bridgeNet, strings.TrimSuffix(limits, "}")+", "+test.key+"}")
		a := c.attachChained(t, host, p, lanAddrs(2), noRecord)
		if err := c.configure(a); err != nil {
			t.Fatal(err)
		}
		host.Run(t, "sh", "-c", "ip addr add 10.9.3.1/32 dev br0; ip addr add fd00:9:0:3::1/128 dev br0 nodad").OK(t)
		wantEqual(t, "differences", fmt.Sprint(c.checkPolicy(t, host, p, a)), "[]")
		wantRate(t, c.Node, host.Node, test.limited, 5e5)
		wantRate(t, c.Node, host.Node, test.free4, 1e6) // what is sent
		six := map[string]string{"10.9.3.1": "fd00:9:0:3::1", "10.1.0.1": "fd00:1::1"}
		wantRate(t, c.Node, host.Node, six[test.limited], 5e5)
		wantRate(t, c.Node, host.Node, six[test.free4], 1e6)
		host.Run(t, "ip", "link", "del", a.IFB).OK(t)
	}
}

func TestBandwidthCommands(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", `, "unshapedSubnets": ["10.9.0.0/21", "fd00:9::/61"]`, `, "shapedSubnets": ["0.0.0.0/0"]`} {
		var states []string
		for _, byHand := range []bool{false, true} {
			host := netsetuptest.NewHost(t)
			c := newContainer(t, host, "web")
			p := planChained(t, BandwidthPolicy(), bridgeNet, strings.TrimSuffix(limits, "}")+key+"}")
			a, err := c.attach(host, p.Plan, lanAddrs(2), noRecord)
			if err != nil {
				t.Fatal(err)
			}
			if byHand {
				a.IFB = "ifb9"
				replayPolicy(t, host, c.Node, p.policy.Commands(p.Plan, p.conf, a))
			} else {
				c.attachPolicy(t, host, p, &a, noRecord)
			}
			state := host.Run(t, "sh", "-c", "tc -d qdisc | sed 's/_stat [0-9]*//'; for d in "+a.HostIf+" "+a.IFB+"; do tc class show dev $d; tc filter show dev $d; tc filter show dev $d ingress; done; ip -d link show "+a.IFB+" | sed 's/^[0-9]*//; s,ether [^ ]*,,'").OK(t).Stdout
			states = append(states, strings.NewReplacer("linklayer ethernet", "linklayer unspec", a.HostIf, "HOSTIF", a.IFB, "IFB").Replace(state))
			host.Run(t, "ip", "link", "del", a.IFB).OK(t)
		}
		if states[0] != states[1] {
			t.Errorf("nsinit made\n%s\nits commands\n%s", states[0], states[1])
		}
	}
}

// wantRate sends datagrams at a megabyte a second and more, and wants so many bytes of frames to arrive a
// second, within a tenth.
func wantRate(t *testing.T, from, to *netsetuptest.Node, addr string, want float64) {
	t.Helper()
	var rate float64
	for range 3 { // a machine that is busy elsewhere delivers less, never more
		var err error
		if rate, err = measure(from, to, netip.MustParseAddr(addr)); err != nil {
			t.Fatal(err)
		}
		if rate > want*0.9 && rate < want*1.1 {
			return
		}
	}
	t.Errorf("to %s: %.0f bytes a second, want %.0f", addr, rate, want)
}

const (
	datagram = 1000
	sendRate = 1.02e6 // bytes of frames a second
	settle   = 100 * time.Millisecond
	measured = 700 * time.Millisecond
)

// measure returns how many bytes a second arrive, frames' headers included.
func measure(from, to *netsetuptest.Node, addr netip.Addr) (float64, error) {
	var receiver, sender *net.UDPConn
	err := to.Do(func() (err error) {
		receiver, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer receiver.Close()
	err = from.Do(func() (err error) {
		sender, err = net.DialUDP("udp", nil, receiver.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		return 0, err
	}
	defer sender.Close()
	frame := float64(datagram + 8 + 20 + 14)
	if addr.Is6() {
		frame += 20
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go flood(sender, frame, stop, done)
	defer func() { close(stop); <-done }()
	buf := make([]byte, 2*datagram)
	var first, last time.Time
	count := 0
	for begin := time.Now(); ; {
		_ = receiver.SetReadDeadline(begin.Add(settle + measured))
		_, err := receiver.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return 0, err
		}
		switch now := time.Now(); {
		case now.Sub(begin) < settle: // the burst, and what neighbours had to learn
		case first.IsZero():
			first = now
		default:
			last = now
			count++
		}
	}
	if count == 0 {
		return 0, errors.New("nothing arrived")
	}
	return float64(count) * frame / last.Sub(first).Seconds(), nil
}

func flood(c *net.UDPConn, frame float64, stop, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	b := make([]byte, datagram)
	sent := 0.0
	for begin := time.Now(); ; {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			for ; sent < now.Sub(begin).Seconds()*sendRate; sent += frame {
				_, _ = c.Write(b) // ENOBUFS where the queue is full
			}
		}
	}
}

func TestBandwidthSources(t *testing.T) {
	t.Parallel()
	runtime := func(r *Request) { r.Runtime.Bandwidth = Bandwidth{IngressRate: 100, IngressBurst: 100} }
	for _, test := range []struct {
		plugin string
		change []func(*Request)
		want   Bandwidth
	}{
		{`{"type": "bandwidth"}`, nil, Bandwidth{}},
		{`{"type": "bandwidth", "capabilities": {"bandwidth": true}}`, []func(*Request){runtime}, Bandwidth{IngressRate: 100, IngressBurst: 100}},
		{
			`{"type": "bandwidth", "egressRate": 800, "egressBurst": 80}`,
			[]func(*Request){runtime},
			Bandwidth{EgressRate: 800, EgressBurst: 80},
		},
		{`{"type": "bandwidth", "runtimeConfig": {"bandwidth": {"egressRate": 800, "egressBurst": 80}}}`, nil, Bandwidth{EgressRate: 800, EgressBurst: 80}},
	} {
		p := planChained(t, BandwidthPolicy(), bridgeNet, test.plugin, test.change...)
		conf, _ := p.conf.(*shaping)
		wantEqual(t, test.plugin, conf.Bandwidth, test.want)
	}
	// As the CNI plugin reckons them.
	for _, test := range []struct {
		rate, burst uint64
		want        string
	}{
		{8_000_000, 800_000, "rate 1000000 B/s, burst 1562500 ticks, limit 125000 B"},
		{80_000_000_000, 8_000_000, "rate 10000000000 B/s, burst 1562 ticks, limit 251000000 B"},
		{8, 4_294_967_295 * 8, "rate 1 B/s, burst 4294967295 ticks, limit 4294967295 B"},
	} {
		wantEqual(t, "bucket", bucketOf(test.rate, test.burst).String(), test.want)
	}
}

func TestBandwidthFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ keys, want string }{
		{`"ingressRate": 8000`, `lan.conflist: plugins[1].ingressRate: "8000": without a burst`},
		{`"egressBurst": 8000`, `plugins[1].egressBurst: "8000": without a rate`},
		{`"ingressRate": 7, "ingressBurst": 8000`, `at least 8`},
		{`"ingressRate": 8000, "ingressBurst": 34359738368`, `more than 4 GB`},
		{`"ingressRate": -1`, `plugins[1].ingressRate: "-1": a whole number`},
		{`"ingressRate": 1.5`, `a whole number`},
		{`"ingressRate": 18446744073709551616`, `a whole number`},
		{`"ingressRate": "8"`, `plugins[1].ingressRate: a string; a number is wanted`},
		{`"ingresRate": 8`, `plugins[1].ingresRate: unknown key; did you mean ingressRate?`},
		{`"runtimeConfig": {"bandwidth": {"ingressRate": 800}}`, `plugins[1].runtimeConfig.bandwidth.ingressRate: "800": without a burst`},
		{`"shapedSubnets": ["10.0.0.1/8"]`, `plugins[1].shapedSubnets[0]: "10.0.0.1/8": has host bits; the subnet is 10.0.0.0/8`},
		{`"shapedSubnets": "10.0.0.0/8"`, `a string; a list is wanted`},
		{`"shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["fd00::/8"]`, `exclude each other`},
	} {
		n := listOf(bridgeNet, `{"type": "bandwidth", `+test.keys+`}`)
		p := planOf(t, bridgeNet, func(r *Request) { r.Network = n })
		_, err := BandwidthPolicy().Plan(p, n.Plugins[1])
		wantError(t, err, test.want)
	}
	n := listOf(`{"type": "loopback"}`, limits)
	_, err := BandwidthPolicy().Plan(Plan{Request: Request{Network: n, Strategy: "loopback"}}, n.Plugins[1])
	wantError(t, err, "no end on the host")
}
