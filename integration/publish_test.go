package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// published exchanges TCP and UDP with a port of an address, and tells how that failed.
func published(from *netsetuptest.Node, port int, to ...netip.Addr) error {
	for _, a := range to {
		for _, network := range []string{"tcp", "udp"} {
			if err := from.Exchange(network, netip.AddrPortFrom(a, uint16(port)), 500, netsetuptest.Patience); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestPublish publishes on the default network, and gives the ports back with the container.
func TestPublish(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	out := m.Outside(t)
	// The echo server's port is known only once the container is there, so a whole range is published.
	c := m.detached(t, "web", "--network", "bridge", "-p", "20000-60999:20000-60999", "-p", "20000-60999:20000-60999/udp", "sleep", "60")
	echo := c.node(t).Echo(t)
	local := netip.MustParseAddr("127.0.0.1")
	for _, try := range []struct {
		from *netsetuptest.Node
		to   []netip.Addr
	}{
		{out.Node, []netip.Addr{out.HostV4, out.HostV6}},
		{m.Node, []netip.Addr{out.HostV4, out.HostV6, local}},
		{c.node(t), []netip.Addr{out.HostV4, out.HostV6}},
	} {
		if err := published(try.from, int(echo.Port), try.to...); err != nil {
			t.Error(err)
		}
	}
	if r := m.run(t, "--network", "bridge", "-p", "8080:80", "-p", "30000:80", "true"); r.Code != 125 ||
		!strings.Contains(r.Stderr, `host port *:30000/tcp: container "web" has it`) {
		t.Errorf("a busy port: exit code %d, %s", r.Code, r.Stderr)
	}
	m.Run(t, "nft", "flush", "ruleset").OK(t)
	m.run(t, "--network", "bridge", "-p", "8080:80", "true").OK(t) // heals for all
	if err := published(out.Node, int(echo.Port), out.HostV4, out.HostV6); err != nil {
		t.Errorf("after a flush and another start: %v", err)
	}
	m.nsinit(t, "delete", "--force", "web").OK(t)
	if rules := m.Run(t, "nft", "list", "ruleset").OK(t).Stdout; strings.Contains(rules, "60999") || strings.Contains(rules, "8080") {
		t.Errorf("left after the end:\n%s", rules)
	}
	m.run(t, "--network", "bridge", "-p", "30000:80", "true").OK(t)
	m.Dirty() // the server holds the container's namespace, and that the bridge
}

// TestChosenHostPort shows the port that was chosen.
func TestChosenHostPort(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	m.detached(t, "web", "--network", "bridge", "-p", "80", "-p", "127.0.0.1::53/udp", "sleep", "60")
	var state struct {
		Networks []struct {
			Ports []struct {
				HostPort, ContainerPort int
				Protocol, HostIP        string
			}
		}
	}
	if err := json.Unmarshal([]byte(m.nsinit(t, "state", "web").OK(t).Stdout), &state); err != nil {
		t.Fatal(err)
	}
	ports := state.Networks[0].Ports
	if len(ports) != 2 || ports[0].HostPort < 1024 || ports[1].HostPort < 1024 || ports[1].HostIP != "127.0.0.1" {
		t.Fatalf("ports of the state: %+v", ports)
	}
	if list := m.nsinit(t, "list").OK(t).Stdout; !strings.Contains(list, strconv.Itoa(ports[0].HostPort)+":80/tcp") {
		t.Errorf("list doesn't show %d:\n%s", ports[0].HostPort, list)
	}
	m.nsinit(t, "delete", "--force", "web").OK(t)
	m.nsinit(t, "gc", "--all").OK(t)
}

// TestPublishNowhere is refused before anything is made.
func TestPublishNowhere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, tt := range []struct{ network, want string }{
		{"", "--publish: without a network; add --network bridge"},
		{"none", "--publish: not with --network none"},
		{"host", "--publish: not with --network host"},
		{"ns:/proc/self/ns/net", "--publish: not with --network ns:"},
	} {
		args := []string{"-p", "8080:80", "true"}
		if tt.network != "" {
			args = append([]string{"--network", tt.network}, args...)
		}
		if r := m.run(t, args...); r.Code != 125 || !strings.Contains(r.Stderr, tt.want) {
			t.Errorf("%s: exit code %d, %s; want %q", tt.network, r.Code, r.Stderr, tt.want)
		}
	}
}

// TestEightPublishersAtOnce starts eight with ports of their own and one that all want: no failure, no duplicate, nothing left.
func TestEightPublishersAtOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	var wg sync.WaitGroup
	results := make([]netsetuptest.Result, 16)
	for i := range 8 {
		wg.Go(func() {
			results[i] = m.run(t, "--network", "bridge", "-p", fmt.Sprintf("%d:80", 9000+i), "-p", "81", "sleep", "0.3")
		})
		wg.Go(func() { results[8+i] = m.run(t, "--network", "bridge", "-p", "7777:80", "sleep", "1") })
	}
	wg.Wait()
	won := 0
	for i, r := range results {
		switch {
		case i < 8:
			r.OK(t)
		case r.Code == 0:
			won++
		case !strings.Contains(r.Stderr, "host port *:7777/tcp: "):
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	}
	if won == 0 {
		t.Error("nobody got the port that all want")
	}
	if rules := m.Run(t, "nft", "list", "ruleset").OK(t).Stdout; strings.Contains(rules, "tcp . ") {
		t.Errorf("left:\n%s", rules)
	}
	m.nsinit(t, "gc", "--all").OK(t)
}
