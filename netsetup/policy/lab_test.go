package policy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A lab is a host with a bridge and an outside, and what nsinit said and recorded.
type lab struct {
	*netsetuptest.Host
	out *netsetuptest.Peer
	opt Options

	mu       sync.Mutex
	warnings []string
	records  []netsetup.Object
}

func newLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	return makeLab(t)
}

func makeLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{Host: netsetuptest.NewHost(t), opt: Options{StateDir: t.TempDir()}}
	l.Dirty() // named namespaces
	l.out = l.Outside(t)
	l.ip(t, "link add nsi0 type bridge")
	l.ip(t, "addr add 10.77.0.1/24 dev nsi0")
	l.ip(t, "addr add fd77::1/64 dev nsi0 nodad")
	l.ip(t, "link set nsi0 up")
	return l
}

func (l *lab) context() context.Context { return context.Background() }

// ip runs the program with arguments that have no spaces in them.
func (l *lab) ip(t testing.TB, args string) {
	t.Helper()
	l.Run(t, append([]string{"ip"}, strings.Fields(args)...)...).OK(t)
}

// container adds one to a bridge whose addresses are 10.NET.0.1/24 and fdNET::1/64.
func (l *lab) container(t testing.TB, bridge string, network, host int) (*netsetuptest.Node, netsetup.Attachment) {
	t.Helper()
	name := fmt.Sprintf("c%d-%d", network, host)
	l.ip(t, "netns add "+name)
	l.ip(t, fmt.Sprintf("link add v%s master %s up type veth peer name eth0 netns %s", name, bridge, name))
	v4 := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/24", network, host))
	v6 := netip.MustParsePrefix(fmt.Sprintf("fd%d::%x/64", network, host))
	a := netsetup.Attachment{
		Network: fmt.Sprintf("net%d", network), Strategy: "bridge", IfName: "eth0", HostIf: "v" + name, Bridge: bridge,
		Addresses: []netip.Prefix{v4, v6}, Gateways: []netip.Addr{v4.Masked().Addr().Next(), v6.Masked().Addr().Next()},
		Masquerade: true,
	}
	l.ip(t, fmt.Sprintf("-n %s addr add %s dev eth0", name, v4))
	l.ip(t, fmt.Sprintf("-n %s addr add %s dev eth0 nodad", name, v6))
	l.ip(t, fmt.Sprintf("-n %s link set eth0 up", name))
	l.ip(t, fmt.Sprintf("-n %s link set lo up", name))
	for _, gw := range a.Gateways {
		l.ip(t, fmt.Sprintf("-n %s route add default via %s", name, gw))
	}
	return l.Named(t, name), a
}

func (l *lab) host() *netsetup.Host {
	return &netsetup.Host{Warn: func(line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.warnings = append(l.warnings, line)
	}}
}

func (l *lab) record(o netsetup.Object) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.Owner == "" && slices.Contains(l.records, o) { // a network's, which containers share
		return nil
	}
	l.records = append(l.records, o)
	return nil
}

// masquerade calls Masquerade in the host's namespaces.
func (l *lab) masquerade(a netsetup.Attachment) error {
	return l.Do(func() error {
		return Masquerade(context.Background(), l.host(), a, "owner", l.opt, l.record)
	})
}

func (l *lab) undoAll() error {
	return l.Do(func() error {
		for _, o := range l.records {
			if err := Undo(context.Background(), o); err != nil {
				return err
			}
		}
		return nil
	})
}

// wantUndone undoes all that was recorded and wants none of words in what is left.
func (l *lab) wantUndone(t *testing.T, words ...string) {
	t.Helper()
	check(t, l.undoAll())
	rules := l.ruleset(t)
	if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(rules, word) }) {
		t.Errorf("left after undo:\n%s", rules)
	}
}

func (l *lab) undoHost() error {
	return l.Do(func() error { return UndoHost(context.Background(), l.host(), l.opt) })
}

func (l *lab) ruleset(t testing.TB) string {
	t.Helper()
	return l.Run(t, "nft", "list", "ruleset").OK(t).Stdout
}

// sysctls are the values of forwarding and of router advertisements, as text.
func (l *lab) sysctls(t testing.TB) string {
	t.Helper()
	return l.Run(t, "sh", "-c", "cd /proc/sys/net && grep -s . ipv4/ip_forward ipv[46]/conf/*/forwarding ipv6/conf/*/force_forwarding ipv6/conf/*/accept_ra ipv4/conf/*/route_localnet; true").OK(t).Stdout
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bridgeCalls shows packets of bridges to the firewall ("1"), or doesn't ("0").
func (l *lab) bridgeCalls(t testing.TB, value string) {
	t.Helper()
	if r := l.Run(t, "ls", "/proc/sys/net/bridge"); r.Code != 0 {
		if value == "1" {
			t.Log("br_netfilter is not loaded: tried without it")
		}
		return
	}
	l.Run(t, "sh", "-c", "cd /proc/sys/net/bridge && for f in bridge-nf-call-ip*tables; do echo "+value+" > $f; done").OK(t)
}

// read wants an answer soon.
func read(c net.Conn, buf []byte) error {
	if err := c.SetReadDeadline(time.Now().Add(never)); err != nil {
		return err
	}
	_, err := c.Read(buf)
	return err
}
