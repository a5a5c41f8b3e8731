package netsetup

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// listen collects the announcements of addresses that come in on a device of n. The
// function that it returns waits for enough of them.
func listen(t *testing.T, n *netsetuptest.Node, name string) func(enough func(heard string) bool) string {
	t.Helper()
	fd := -1
	err := n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap16(unix.ETH_P_ALL))); err != nil {
			return err
		}
		card, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ALL), Ifindex: card.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	limit := unix.Timeval{Usec: 50_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return func(enough func(string) bool) string {
		var heard strings.Builder
		buf := make([]byte, 2048)
		for deadline := time.Now().Add(netsetuptest.Patience); !enough(heard.String()) && time.Now().Before(deadline); {
			if k, _, err := unix.Recvfrom(fd, buf, 0); err == nil {
				heard.WriteString(announcement(buf[:k]))
			}
		}
		return heard.String()
	}
}

func swap16(n uint16) uint16 { return n<<8 | n>>8 }

// announcement describes a gratuitous ARP message (RFC 5227) or an unsolicited
// neighbour advertisement (RFC 4861); "" for any other frame.
func announcement(b []byte) string {
	if len(b) < 42 {
		return ""
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		mac, from, of := net.HardwareAddr(b[22:28]), netip.AddrFrom4([4]byte(b[28:32])), netip.AddrFrom4([4]byte(b[38:42]))
		if from == of {
			return fmt.Sprintf("ARP %s is-at %s\n", of, mac)
		}
	case unix.ETH_P_IPV6:
		if len(b) >= 78 && b[20] == unix.IPPROTO_ICMPV6 && b[54] == 136 {
			return fmt.Sprintf("NA %s\n", netip.AddrFrom16([16]byte(b[62:78])))
		}
	}
	return ""
}

// TestLinkFaults has bad values of each key: one line each, with file, key, value and
// remedy, and none gets as far as the kernel.
func TestLinkFaults(t *testing.T) {
	t.Parallel()
	const ipam = `"ipam": {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}`
	for _, test := range []struct{ plugin, want string }{
		{`{"type": "macvlan", "master": 5}`, "lan.conflist: plugins[0].master: a number; a string is wanted"},
		{`{"type": "macvlan", "master": "lo"}`, `plugins[0].master: "lo": the loopback device carries no other; a network card's name, as eth0`},
		{`{"type": "macvlan", "master": "eth/1"}`, `plugins[0].master: "eth/1": '/' is not allowed`},
		{`{"type": "macvlan", "master": "eth12345678901234"}`, `plugins[0].master: "eth12345678901234": 17 bytes; an interface's name has at most 15`},
		{`{"type": "macvlan", "mode": "source"}`, `plugins[0].mode: "source": unknown; one of ["bridge" "private" "vepa" "passthru"]`},
		{`{"type": "macvlan", "mode": "brige"}`, `plugins[0].mode: "brige": unknown; one of ["bridge" "private" "vepa" "passthru"]; did you mean bridge?`},
		{`{"type": "macvlan", "mode": 1}`, "plugins[0].mode: a number; a string is wanted"},
		{`{"type": "macvlan", "mtu": 67}`, `"67": out of range; 68 to 65535`},
		{`{"type": "macvlan", "mtu": -1}`, `plugins[0].mtu: "-1": a whole number from 0 is wanted`},
		{`{"type": "macvlan", "linkInContainer": "yes"}`, "plugins[0].linkInContainer: a string; true or false is wanted"},
		{`{"type": "macvlan", "bcqueuelen": 4294967296}`, `plugins[0].bcqueuelen: "4294967296": too long; 0 to 4294967295`},
		{`{"type": "macvlan", "bcqueuelen": "9"}`, "plugins[0].bcqueuelen: a string; a number is wanted"},
		{`{"type": "macvlan", "mac": "01:00:00:00:00:01"}`, `plugins[0].mac: "01:00:00:00:00:01": a multicast address`},
		{`{"type": "macvlan", "mac": "x"}`, `plugins[0].mac: "x": not a MAC address; six bytes`},
		{`{"type": "macvlan", "mode": "passthru", "mac": "02:00:00:00:00:01"}`, `plugins[0].mac: "02:00:00:00:00:01": in mode passthru the parent's address is the interface's; leave it out`},
		{`{"type": "macvlan", "ipMasq": true}`, "lan.conflist: plugins[0].ipMasq: true: traffic of a macvlan doesn't pass the host; leave it out"},
		{`{"type": "macvlan", "ipam": {"type": "static"}}`, "lan.conflist: plugins[0].ipam.addresses: missing"},
		{`{"type": "macvlan", "vlanId": 5}`, "plugins[0].vlanId: unknown key"},
		{`{"type": "macvlan", "Master": "eth1"}`, "plugins[0].Master: unknown key; did you mean master?"},
		{`{"type": "ipvlan", ` + ipam + `, "mode": "l4"}`, `plugins[0].mode: "l4": unknown; one of ["l2" "l3" "l3s"]`},
		{`{"type": "ipvlan", ` + ipam + `, "bcqueuelen": 5}`, "plugins[0].bcqueuelen: unknown key"},
		{`{"type": "ipvlan"}`, `lan.conflist: plugins[0].ipam: missing; ipvlan needs addresses, as {"type": "static"`},
		{`{"type": "vlan", "vlanId": 5, ` + ipam + `}`, "lan.conflist: plugins[0].master: missing; the device that has the VLAN, as eth0"},
		{`{"type": "vlan", "master": "eth1", ` + ipam + `}`, "lan.conflist: plugins[0].vlanId: missing; the VLAN's number, 0 to 4094"},
		{`{"type": "vlan", "master": "eth1", "vlanId": 4095, ` + ipam + `}`, `plugins[0].vlanId: "4095": no VLAN; 0 to 4094`},
		{`{"type": "vlan", "master": "eth1", "vlanId": -1, ` + ipam + `}`, `plugins[0].vlanId: "-1": a whole number from 0 is wanted`},
		{`{"type": "vlan", "master": "eth1", "vlanId": "5", ` + ipam + `}`, "plugins[0].vlanId: a string; a number is wanted"},
		{`{"type": "vlan", "master": "eth1", "vlanId": 5}`, "plugins[0].ipam: missing; vlan needs addresses"},
		{`{"type": "dummy"}`, "plugins[0].ipam: missing; dummy needs addresses"},
		{`{"type": "dummy", "master": "eth1", ` + ipam + `}`, "plugins[0].master: unknown key"},
		{`{"type": "tap", "owner": "root"}`, "plugins[0].owner: a string; a number is wanted"},
		{`{"type": "tap", "owner": 4294967295}`, `plugins[0].owner: "4294967295": out of range; 0 to 4294967294`},
		{`{"type": "tap", "group": -1}`, `plugins[0].group: "-1": a whole number from 0 is wanted`},
		{`{"type": "tap", "group": 1.5}`, `plugins[0].group: "1.5": a whole number from 0 is wanted`},
		{`{"type": "tap", "multiQueue": 2}`, "plugins[0].multiQueue: a number; true or false is wanted"},
		{`{"type": "tap", "bridge": "a b"}`, `plugins[0].bridge: "a b": space is not allowed`},
		{`{"type": "tap", "selinuxContext": "system_u:system_r:container_t:s0"}`, `plugins[0].selinuxContext: "system_u:system_r:container_t:s0": takes another program`},
	} {
		n := networkOf(test.plugin)
		s, err := StrategyOf(n.Plugins[0].Type)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Plan(Request{Strategy: n.Plugins[0].Type, IfName: "eth0", Network: n, Source: "--network lan"})
		wantError(t, err, test.want)
		if err != nil && strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: more than one line: %v", test.plugin, err)
		}
	}
}

// TestLinkCommands has the commands leave what nsinit left.
func TestLinkCommands(t *testing.T) {
	t.Parallel()
	const more = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.9.0.8", "mtu": 1300, "priority": 7}]}`
	const v4 = `"ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}`
	for name, test := range map[string]struct{ kind, plugin string }{
		"macvlan":    {"macvlan", `{"type": "macvlan", "master": "eth1", "mode": "vepa", "bcqueuelen": 99, "mac": "02:00:00:00:00:07", ` + more + `}`},
		"macvlan v4": {"macvlan", `{"type": "macvlan", "master": "eth1", "mtu": 1400, ` + v4 + `}`},
		"bare":       {"macvlan", `{"type": "macvlan", "master": "eth1", "mode": "passthru"}`},
		"ipvlan":     {"ipvlan", `{"type": "ipvlan", "master": "eth1", "mode": "l3s", ` + more + `}`},
		"vlan":       {"vlan", `{"type": "vlan", "master": "eth1", "vlanId": 7, "mtu": 1400, ` + more + `}`},
		"dummy":      {"dummy", `{"type": "dummy", ` + more + `}`},
		"tap":        {"tap", `{"type": "tap", "owner": 61234, "group": 61235, "mtu": 1400, ` + more + `}`},
		"tap queues": {"tap", `{"type": "tap", "multiQueue": true, "group": 61235, ` + v4 + `}`},
		"tap bridge": {"tap", `{"type": "tap", "bridge": "br7", "mac": "02:00:00:00:00:07"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var states []netsetuptest.Snapshot
			p := planOf(t, test.plugin)
			addrs := addrs9(2)
			switch {
			case p.IPAM == "":
				addrs = nil
			case p.NoIPv6:
				addrs = addrs[:1]
			}
			var a Attachment
			for _, replayed := range []bool{false, true} {
				host := netsetuptest.NewHost(t)
				skipWithout(t, host, test.kind)
				needTun(t, host)
				newCard(t, host)
				host.Run(t, "ip", "link", "set", "eth1", "address", "02:00:00:00:00:01").OK(t)
				c := newContainer(t, host, "web")
				c.Run(t, "sh", "-ec", "ip link set lo up; ip link add br7 address 02:00:00:00:00:02 type bridge").OK(t)
				if replayed {
					s, _ := StrategyOf(p.Strategy)
					replayPolicy(t, host, c.Node, s.Commands(p, a))
				} else {
					a = c.start(t, host, p, addrs)
				}
				states = append(states, settled(t, c.Node))
			}
			if diff := netsetuptest.Diff(states[0], states[1]); diff != "" {
				t.Errorf("the commands leave something else (- nsinit, + commands):\n%s", diff)
			}
		})
	}
}

// settled is the state of n once it stays as it is: addresses are looked for twice,
// and the kernel tells of carriers once a second.
func settled(t *testing.T, n *netsetuptest.Node) netsetuptest.Snapshot {
	t.Helper()
	last := n.NetworkSnapshot(t)
	for same := 0; same < 3; time.Sleep(500 * time.Millisecond) {
		now := n.NetworkSnapshot(t)
		if same++; netsetuptest.Diff(last, now) != "" || len(now.Grep("tentative=true")) > 0 {
			same = 0
		}
		last = now
	}
	return last
}
