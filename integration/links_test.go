package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// newCard gives m a network card: eth1, whose other end is a switch's.
func newCard(t testing.TB, m *machine) {
	t.Helper()
	m.Run(t, "sh", "-ec", `ip link add eth1 address 02:00:00:00:01:01 type veth peer name switch address 02:00:00:00:01:02
		ip link set eth1 addrgenmode none; ip link set switch addrgenmode none
		ip link set eth1 up; ip link set switch up`).OK(t)
}

// TestMacvlanCarriesTraffic has two containers beside each other on a card of the host, and one of a file.
func TestMacvlanCarriesTraffic(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	newCard(t, m)
	web := m.detached(t, "web", "--network", "macvlan:parent=eth1,ip=10.40.0.2/24,ip=fd00:40::2/64", "--", "sleep", "100")
	db := m.detached(t, "db", "--network", "macvlan:parent=eth1,mtu=1400,ip=10.40.0.3/24,ip=fd00:40::3/64", "--", "sleep", "100")
	v4, v6 := db.addrs(t)
	echo := db.node(t).Echo(t)
	for _, err := range []error{reaches(web.node(t), v4, echo, 1400), reaches(web.node(t), v6, echo, 1400)} {
		if err != nil {
			t.Error(err)
		}
	}
	r := m.run(t, "--network", "macvlan:parent=eth1,ip=10.40.0.2/24", "--", "true")
	if r.Code == 0 || !strings.Contains(r.Stderr, `address 10.40.0.2: taken by container "web"`) {
		t.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
}

// TestLinkErrors has a start refused before anything is left behind.
func TestLinkErrors(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	newCard(t, m)
	m.run(t, "--network", "macvlan:parent=eth1,ip=10.40.0.9/24", "--", "true").OK(t) // the network's lock file stays
	netsetuptest.Poll(t, func() error {                                              // until the kernel has removed that container's macvlan
		if r := m.Run(t, "ip", "-d", "-o", "link", "show", "eth1").OK(t); !strings.Contains(r.Stdout, "promiscuity 0 ") {
			return errors.New(r.Stdout)
		}
		return nil
	})
	before := m.Settled(t)
	for flag, want := range map[string]string{
		"macvlan":                              "--network macvlan: parent: missing, and there is no default route on the host whose device could be taken; name the device",
		"macvlan:parent=eth7":                  `--network macvlan:parent=eth7: parent: "eth7": no such device on the host`,
		"macvlan:parent=eth1,mtu=1501":         `mtu: "1501": more than the 1500 of eth1; at most that`,
		"macvlan:parent=eth1,mode=l2":          `mode: "l2": unknown; one of bridge, private, vepa, passthru`,
		"ipvlan:parent=eth1":                   "--network ipvlan:parent=eth1: ip: missing; ipvlan needs addresses",
		"ipvlan:parent=eth1,ip=10.40.0.9":      `ip: "10.40.0.9": no prefix length, and ipvlan has no pool; write ip=10.40.0.9/24`,
		"vlan:parent=eth1,ip=10.40.0.9/24":     "vlan: missing; the VLAN's number, 0 to 4094",
		"vlan:vlan=5,ip=10.40.0.9/24":          "parent: missing; the device that has the VLAN, as eth0",
		"tap:bridge=br9":                       `bridge: "br9": no such device in the container`,
		"macvlan:parent=eth1,ip=10.40.0.9/24x": `ip: "10.40.0.9/24x": not an address`,
	} {
		r := m.run(t, "--network", flag, "--", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, want) || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", flag, r.Code, r.Stderr)
		}
	}
	m.Await(t, before)
}

// TestTapHasALink runs what needs no other end.
func TestTapHasALink(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(t, "sh", "-c", tun).OK(t)
	links := netsetuptest.Decode[[]netsetuptest.Link](t, m.run(t, "--network", "tap:owner=1000,ip=10.45.0.1/24", "--", "ip", "-d", "-j", "addr").OK(t))
	eth := netsetuptest.FindLink(t, links, "eth0")
	if eth.LinkInfo.Kind != "tun" || eth.Addr(t, 4).String() != "10.45.0.1/24" || eth.Up() {
		t.Errorf("%+v", eth)
	}
}
