package integration

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A network of its own, without a way out.
func TestPodmanInternal(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	out := p.Outside(t)
	outside := out.Echo(t)
	first := p.Settled(t)
	p.lan(t, "lan", 77, "--internal", "--opt", "mtu=1400")
	web, db := p.up(t, "web", "--network", "lan"), p.up(t, "db", "--network", "lan")
	echo, there := db.Echo(t), db.Link(t, "eth0")
	if there.MTU != 1400 {
		t.Errorf("MTU %d", there.MTU)
	}
	if routes := netsetuptest.FindRoute(web.Routes(t), "default"); len(routes) > 0 {
		t.Errorf("default routes %v", routes)
	}
	for _, err := range []error{
		reaches(web, there.Addr(t, 4).Addr(), echo, 1400), reaches(web, there.Addr(t, 6).Addr(), echo, 1400),
		silent(web, out.V4, outside), silent(web, out.V6, outside),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	p.down(t, "web", "db")
	p.podman(t, "network", "rm", "lan").OK(t)
	p.gone(t, first)
	p.nsinit(t, "gc", "--all").OK(t)
}

// Two networks that podman keeps from each other, and one beside them that it doesn't.
func TestPodmanIsolated(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	p.Outside(t)
	first := p.Settled(t)
	p.lan(t, "lan", 77, "--opt", "isolate=true")
	p.lan(t, "back", 78, "--opt", "isolate=true")
	web, near, far := p.up(t, "web", "--network", "lan"), p.up(t, "near", "--network", "lan"), p.up(t, "far", "--network", "back")
	nearEcho, farEcho := near.Echo(t), far.Echo(t)
	for _, family := range []int{4, 6} {
		if err := reaches(web, near.Link(t, "eth0").Addr(t, family).Addr(), nearEcho, 1500); err != nil {
			t.Error(err)
		}
		if err := silent(web, far.Link(t, "eth0").Addr(t, family).Addr(), farEcho); err != nil {
			t.Error(err)
		}
	}
	p.down(t, "web", "near", "far")
	p.podman(t, "network", "rm", "lan", "back").OK(t)
	p.gone(t, first)
	p.nsinit(t, "gc", "--all").OK(t)
}

// A network on a card of the host, which podman makes no bridge for.
func TestPodmanMacvlan(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	if !p.hasDevices(t, "macvlan") {
		t.Skip("this kernel has no macvlan devices")
	}
	newCard(t, p.machine)
	first := p.Settled(t)
	p.lan(t, "lan", 77, "-d", "macvlan", "--opt", "parent=eth1")
	web := p.up(t, "web", "--network", "lan", "--mac-address", "02:00:00:00:00:07")
	db := p.up(t, "db", "--network", "lan", "--ip", "10.77.0.50", "--ip6", "fd77::50")
	if got := web.Link(t, "eth0").Address; got != "02:00:00:00:00:07" {
		t.Errorf("MAC address %s", got)
	}
	echo := db.Echo(t)
	for _, to := range []string{"10.77.0.50", "fd77::50"} {
		if err := reaches(web, netip.MustParseAddr(to), echo, 1500); err != nil {
			t.Error(err)
		}
	}
	p.down(t, "web", "db")
	p.podman(t, "network", "rm", "lan").OK(t)
	p.gone(t, first)
}

// A network in a VLAN of its bridge; where the kernel has none, podman is told so, and nothing is left.
func TestPodmanVLAN(t *testing.T) {
	t.Parallel()
	long(t)
	p := newPodman(t)
	first := p.Settled(t)
	p.lan(t, "lan", 77, "--opt", "vlan=7")
	r := p.podman(t, "run", "--rm", "--network", "lan", "--rootfs", p.root, "ping", "-c1", "-w5", "10.77.0.1")
	switch p.Run(t, "sh", "-c", "ip link add probe0 type bridge vlan_filtering 1 && ip link del probe0").Code {
	case 0:
		r.OK(t)
	default:
		if r.Code != 126 || !strings.Contains(r.Stderr, "CONFIG_BRIDGE_VLAN_FILTERING") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	}
	p.podman(t, "network", "rm", "-f", "lan").OK(t)
	p.gone(t, first)
	p.nsinit(t, "gc", "--all").OK(t)
}
