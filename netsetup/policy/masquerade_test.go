package policy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

const (
	soon  = 3 * time.Second
	never = 300 * time.Millisecond // for packets that must not arrive
)

// exchanges sends ICMP, TCP and UDP to both addresses.
func exchanges(t *testing.T, from *netsetuptest.Node, echo *netsetuptest.Echo, to ...netip.Addr) {
	t.Helper()
	for _, a := range to {
		check(t, from.Ping(a, 56, soon))
		for _, network := range []string{"tcp", "udp"} {
			check(t, from.Exchange(network, netip.AddrPortFrom(a, echo.Port), 1000, soon))
		}
	}
}

func TestMasqueradeBothFamilies(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	echo := l.out.Echo(t)
	check(t, l.masquerade(a))
	exchanges(t, c, echo, l.out.V4, l.out.V6)
	check(t, c.Ping(netsetuptest.BeyondV4, 56, soon))
	check(t, c.Ping(netsetuptest.BeyondV6, 56, soon))
	if got, want := echo.Seen(), []netip.Addr{l.out.HostV4, l.out.HostV6}; !slices.Equal(got, want) {
		t.Errorf("the outside saw %v, want %v", got, want)
	}
}

// Containers see each other's own addresses: on one bridge (with packets of bridges
// shown to the firewall as well, which is where naive rules translate), and across.
func TestOwnNetworksAreNotMasqueraded(t *testing.T) {
	l := newLab(t)
	l.ip(t, "link add nsi1 type bridge")
	l.ip(t, "addr add 10.78.0.1/24 dev nsi1")
	l.ip(t, "addr add fd78::1/64 dev nsi1 nodad")
	l.ip(t, "link set nsi1 up")
	c, ca := l.container(t, "nsi0", 77, 2)
	same, sa := l.container(t, "nsi0", 77, 3)
	other, oa := l.container(t, "nsi1", 78, 2)
	for _, a := range []netsetup.Attachment{ca, sa, oa} {
		check(t, l.masquerade(a))
	}
	for _, bridgeCalls := range []string{"0", "1"} {
		l.bridgeCalls(t, bridgeCalls)
		for _, peer := range []struct {
			*netsetuptest.Node
			a netsetup.Attachment
		}{{same, sa}, {other, oa}} {
			echo := peer.Echo(t)
			exchanges(t, c, echo, peer.a.Addresses[0].Addr(), peer.a.Addresses[1].Addr())
			if got, want := echo.Seen(), []netip.Addr{ca.Addresses[0].Addr(), ca.Addresses[1].Addr()}; !slices.Equal(got, want) {
				t.Errorf("%s saw %v, want %v (bridge-nf-call %s)", peer.Name, got, want, bridgeCalls)
			}
		}
	}
}

// Packets that belong to no connection aren't translated, and must not leave with an
// address that means nothing outside.
func TestNothingLeavesUntranslated(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	check(t, c.Ping(l.out.V4, 56, soon)) // neighbours are known from here on
	var seen int
	check(t, l.out.Do(func() (err error) {
		seen, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	}))
	defer unix.Close(seen)
	check(t, c.Do(func() error { return sendReset("10.77.0.2", l.out.V4.String()) }))
	limit := unix.NsecToTimeval(never.Nanoseconds())
	check(t, unix.SetsockoptTimeval(seen, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	buf := make([]byte, 100)
	if n, _, err := unix.Recvfrom(seen, buf, 0); err == nil {
		t.Errorf("the outside got % x", buf[:n])
	}
}

// sendReset sends a TCP reset of a connection that there isn't.
func sendReset(from, to string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	src, dst := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	segment := []byte{0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0}
	sum := uint32(unix.IPPROTO_TCP + len(segment))
	for _, part := range [][]byte{src[:], dst[:], segment} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(segment[16:], ^uint16(sum))
	return unix.Sendto(s, segment, 0, &unix.SockaddrInet4{Addr: dst})
}

func TestPointToPoint(t *testing.T) {
	l := newLab(t)
	c, a := l.container(t, "nsi0", 77, 2)
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
	check(t, l.masquerade(a))
	ledger := l.Run(t, "sha256sum", l.opt.StateDir+"/host.json").OK(t).Stdout
	warned := len(l.warnings)
	check(t, l.masquerade(pa))
	if len(l.warnings) != warned || ledger != l.Run(t, "sha256sum", l.opt.StateDir+"/host.json").OK(t).Stdout {
		t.Errorf("a device that dies with its container was recorded as the host's: %v", l.warnings[warned:])
	}
	out, between := l.out.Echo(t), c.Echo(t)
	exchanges(t, p, out, l.out.V4)
	exchanges(t, p, between, a.Addresses[0].Addr())
	if got := fmt.Sprint(out.Seen(), between.Seen()); got != fmt.Sprintf("[%s] [10.79.0.2]", l.out.HostV4) {
		t.Errorf("seen outside and by a container: %s", got)
	}
	l.wantUndone(t, "ptp0", "10.79.0.2")
}

func TestFlushHeals(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) { return l.records, nil }
	c1, a1 := l.container(t, "nsi0", 77, 2)
	c2, a2 := l.container(t, "nsi0", 77, 3)
	check(t, l.masquerade(a1))
	before := l.ruleset(t)
	l.Run(t, "nft", "flush", "ruleset").OK(t)
	check(t, l.masquerade(a2))
	for _, c := range []*netsetuptest.Node{c1, c2} {
		check(t, c.Ping(l.out.V4, 56, soon))
		check(t, c.Ping(l.out.V6, 56, soon))
	}
	check(t, l.Do(func() error { return Undo(t.Context(), l.records[len(l.records)-1]) }))
	check(t, l.Do(func() error { return Undo(t.Context(), l.records[len(l.records)-2]) }))
	if got := zeroCounters(l.ruleset(t)); got != zeroCounters(before) {
		t.Errorf("healed table differs:\n%s\nwas:\n%s", got, before)
	}
}

// zeroCounters leaves out what packets change.
func zeroCounters(ruleset string) string {
	words := strings.Split(ruleset, " ")
	for i := range words {
		if i > 0 && (words[i-1] == "packets" || words[i-1] == "bytes") {
			words[i] = "0"
		}
	}
	return strings.Join(words, " ")
}

func TestEightFirstUsersAgree(t *testing.T) {
	l := newLab(t)
	var attachments []netsetup.Attachment
	for i := range 8 {
		_, a := l.container(t, "nsi0", 77, 2+i)
		attachments = append(attachments, a)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(attachments))
	for i, a := range attachments {
		wg.Go(func() { errs[i] = l.masquerade(a) })
	}
	wg.Wait()
	for _, err := range errs {
		check(t, err)
	}
	rules := l.ruleset(t)
	for _, a := range attachments {
		for _, p := range a.Addresses {
			if !strings.Contains(rules, p.Addr().String()) {
				t.Errorf("%s is missing:\n%s", p.Addr(), rules)
			}
		}
	}
	if n := strings.Count(rules, "masquerade"); n != 6 { // a family: outwards by address and by subnet, and back to a published port
		t.Errorf("%d masquerade rules, want 6:\n%s", n, rules)
	}
	if len(l.warnings) != 1 {
		t.Errorf("the change of forwarding was told %d times: %v", len(l.warnings), l.warnings)
	}
}

// A transaction is one datagram, and an element list one attribute of 64 KiB at most.
func TestHealThousands(t *testing.T) {
	l := newLab(t)
	l.opt.Recorded = func() ([]netsetup.Object, error) {
		var all []netsetup.Object
		for i := range 30000 {
			v4 := netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})
			v6 := netip.MustParseAddr(fmt.Sprintf("fd99::%x", i))
			for _, a := range []netip.Addr{v4, v6} {
				all = append(all, netsetup.Object{Kind: KindMasquerade, Name: a.String(), IfName: "nsi0"})
			}
		}
		return all, nil
	}
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	if n := strings.Count(l.ruleset(t), "fd99::"); n != 30000 {
		t.Errorf("%d elements, want 30000", n)
	}
}

func TestUndoTwice(t *testing.T) {
	l := newLab(t)
	sysctls := l.sysctls(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	first := l.ruleset(t)
	check(t, l.masquerade(a)) // again is no error
	if again := l.ruleset(t); again != first {
		t.Errorf("the second call changed the table:\n%s", again)
	}
	for range 2 {
		l.wantUndone(t, "10.77.0.2", "fd77::2")
	}
	for range 2 {
		check(t, l.undoHost())
		check(t, l.undoAll()) // without a table
		if rules := l.ruleset(t); rules != "" {
			t.Errorf("left after undo of the host:\n%s", rules)
		}
		if left := l.Run(t, "ls", "-A", l.opt.StateDir).OK(t).Stdout; left != "" {
			t.Errorf("files left: %s", left)
		}
		if got := without(l.sysctls(t), "vc77"); got != sysctls {
			t.Errorf("sysctls differ:\n%s\nwere:\n%s", got, sysctls)
		}
	}
}

// without leaves out lines that hold word.
func without(text, word string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(l string) bool { return strings.Contains(l, word) })
	return strings.Join(lines, "")
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	_, missing := l.container(t, "nsi0", 77, 3)
	differences := func(a netsetup.Attachment) string {
		var diffs []netsetup.Difference
		check(t, l.Do(func() (err error) {
			diffs, err = Check(t.Context(), nil, a, l.opt)
			return err
		}))
		return fmt.Sprint(diffs)
	}
	const table = "table inet nsinit: want "
	for _, tt := range []struct{ commands, want string }{
		{"true", "[" + table + "the table, the kernel has none forwarding for nsi0: want on, the kernel has off]"},
		{"", "[]"},
		{"sysctl -qw net.ipv4.conf.nsi0.forwarding=0", "[forwarding for nsi0: want on, the kernel has off]"},
		{"sysctl -qw net.ipv4.conf.nsi0.forwarding=1; nft flush chain inet nsinit postrouting", "[" + table + "the rules of chain postrouting, the kernel has none]"},
		{"nft flush ruleset", "[" + table + "the table, the kernel has none]"},
	} {
		if tt.commands == "" {
			check(t, l.masquerade(a))
		}
		l.Run(t, "sh", "-c", tt.commands).OK(t)
		if got := differences(a); got != tt.want {
			t.Errorf("after %q: %s, want %s", tt.commands, got, tt.want)
		}
	}
	check(t, l.masquerade(a))
	want := "[" + table + "10.77.0.3, the kernel has none " + table + "fd77::3, the kernel has none]"
	if got := differences(missing); got != want {
		t.Errorf("for another container: %s, want %s", got, want)
	}
}

func TestAttachmentWithoutHostSide(t *testing.T) {
	for _, tt := range []struct {
		a    netsetup.Attachment
		want string
	}{
		{netsetup.Attachment{Network: "lan", Strategy: "macvlan"}, "masquerade: network lan: strategy macvlan has no device on the host"},
		{netsetup.Attachment{Network: "lan", HostIf: "veth1"}, "masquerade: network lan: the container has no address"},
	} {
		err := Masquerade(context.Background(), nil, tt.a, "", Options{}, nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}
