package integration

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// The numbers of starts in the issue. An emulated machine takes a second for each, and makes few.
var massInARow, massAtOnce, massStarters = 1000, 400, 8

// few tells whether a test is to be smaller than its full size.
func few() bool { return testing.Short() || os.Getenv("NSINIT_VM") != "" }

// starter starts one container after another on one host.
type starter struct {
	m     *machine
	root  string
	first string // what the program does first of all: one packet each way, sent once
}

// newStarter makes a host, and a first start that makes the bridge.
func newStarter(t testing.TB) (*starter, netsetuptest.Snapshot) {
	t.Helper()
	m := newMachine(t)
	m.Dirty() // the state is compared whole
	s := &starter{m: m, root: newRootfs(t)}
	gateway := m.run(t, with([]string{"--rootfs", s.root, "--network", "bridge"}, script("ip -4 route show default"))...).OK(t)
	f := strings.Fields(gateway.Stdout)
	if len(f) < 3 {
		t.Fatalf("no default route: %q", gateway.Stdout)
	}
	s.first = "ping -c 1 -W 2 -q " + f[2]
	return s, m.Settled(t)
}

// start is one start; the error says what went wrong. The command's own network namespace is the host's.
func (s *starter) start() error {
	cmd := s.m.command(with([]string{"run", "--rootfs", s.root, "--network", "bridge", "--"}, strings.Fields(s.first))...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.m.DoInside(cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	return nil
}

// many starts count containers by starters at once, and stops at the third failure.
func (s *starter) many(t testing.TB, count, starters int) {
	t.Helper()
	var next, failed atomic.Int32
	var wg sync.WaitGroup
	began := time.Now()
	for range starters {
		wg.Go(func() {
			for int(next.Add(1)) <= count && failed.Load() < 3 {
				if err := s.start(); err != nil {
					failed.Add(1)
					t.Errorf("start %d or so of %d: %v", next.Load(), count, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d starts by %d at once: %v each", count, starters, time.Since(began)/time.Duration(count))
}

// A thousand starts in a row lose no first packet, and leave the host as it was after the first.
func TestManyStartsInARow(t *testing.T) {
	t.Parallel()
	count := massInARow
	if few() {
		count = 20
	}
	s, before := newStarter(t)
	s.many(t, count, 1)
	s.m.Await(t, before)
}

// The same by several starters at once.
func TestManyStartsAtOnce(t *testing.T) {
	t.Parallel()
	count := massAtOnce
	if few() {
		count = 4 * massStarters
	}
	s, before := newStarter(t)
	s.many(t, count, massStarters)
	s.m.Await(t, before)
}

// contest starts n at once, and returns how they ended. Their output is in files: what a detached container holds open
// is not waited for.
func contest(t testing.TB, m *machine, n int, args func(i int) []string) []netsetuptest.Result {
	t.Helper()
	dir := t.TempDir()
	ps := make([]*netsetuptest.Process, n)
	for i := range ps {
		cmd := m.command(with([]string{"run"}, args(i))...)
		out, err := os.OpenFile(fmt.Sprintf("%s/%d", dir, i), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = out, out
		ps[i] = m.Start(t, cmd)
		out.Close()
	}
	rs := make([]netsetuptest.Result, n)
	for i, p := range ps {
		rs[i] = p.Wait(t)
		said, err := os.ReadFile(fmt.Sprintf("%s/%d", dir, i))
		if err != nil {
			t.Fatal(err)
		}
		rs[i].Stderr = string(said)
	}
	return rs
}

func contestants() int {
	if few() {
		return 6
	}
	return 20
}

// Fifty starts that find no bridge make one.
func TestBridgeIsMadeOnce(t *testing.T) {
	t.Parallel()
	m, root, n := newMachine(t), newRootfs(t), 50
	if few() {
		n = 8
	}
	rs := contest(t, m, n, func(int) []string {
		return with([]string{"--rootfs", root, "--network", "bridge"}, script("ip -4 route show default; ip -6 route show default; ping -c 1 -W 2 -q $(ip -4 route show default | cut -d' ' -f3) >/dev/null"))
	})
	told, gateways := 0, map[string]bool{}
	for _, r := range rs {
		lines := strings.SplitAfter(r.OK(t).Stderr, "\n")
		if strings.HasPrefix(lines[0], "nsinit: forwarding was off") {
			told, lines = told+1, lines[1:]
		}
		gateways[strings.Join(lines, "")] = true
	}
	if told != 1 || len(gateways) != 1 {
		t.Errorf("%d told of forwarding, want one; gateways %v, want the same for all", told, gateways)
	}
	if bridges := m.Settled(t).Without("addr", "route", "sysctl", "nft").Grep("info_kind=bridge"); len(bridges) != 1 {
		t.Errorf("the host has %d bridges, want one: %q", len(bridges), bridges)
	}
}

// Of many that want one name, one gets it.
func TestOneNameOneContainer(t *testing.T) {
	t.Parallel()
	m, root := newMachine(t), newRootfs(t)
	oneWins(t, contest(t, m, contestants(), func(int) []string {
		return []string{"--rootfs", root, "--name", "only", "-d", "--network", "bridge", "--", "sleep", "1000"}
	}), "in use")
	m.nsinit(t, "delete", "--force", "only").OK(t)
	m.run(t, "--rootfs", root, "--name", "only", "--", "true").OK(t) // and it is free again
}

// Of many that want one address, one gets it.
func TestOneAddressOneContainer(t *testing.T) {
	t.Parallel()
	m, root := newMachine(t), newRootfs(t)
	r := m.run(t, with([]string{"--rootfs", root, "--network", "bridge"}, script("ip -4 route show default | cut -d' ' -f3"))...).OK(t)
	gateway, err := netip.ParseAddr(r.Line())
	if err != nil {
		t.Fatal(err)
	}
	bytes := gateway.As4()
	bytes[3] = 200
	wanted := netip.AddrFrom4(bytes).String()
	rs := contest(t, m, contestants(), func(i int) []string {
		return []string{"--rootfs", root, "--name", fmt.Sprint("c", i), "-d", "--network", "bridge:ip=" + wanted, "--", "sleep", "1000"}
	})
	winner := oneWins(t, rs, wanted)
	if got := m.nsinit(t, "list", "--json").OK(t).Stdout; strings.Count(got, `"id"`) != 1 {
		t.Errorf("list: %s", got)
	}
	m.nsinit(t, "delete", "--force", fmt.Sprint("c", winner)).OK(t)
}

// oneWins wants all but one of rs to say what is taken, and returns that one.
func oneWins(t testing.TB, rs []netsetuptest.Result, says string) (winner int) {
	t.Helper()
	winner = -1
	for i, r := range rs {
		switch {
		case r.Code == 0 && winner < 0:
			winner = i
		case r.Code == 0:
			t.Errorf("%d and %d both win", winner, i)
		case r.Code != 125 || oneLine(r) != nil || !strings.Contains(r.Stderr, says):
			t.Errorf("exit code %d: %q, want one line with %q", r.Code, r.Stderr, says)
		}
	}
	if winner < 0 {
		t.Fatalf("nobody wins: %s", rs[0].Stderr)
	}
	return winner
}
