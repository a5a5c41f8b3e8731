package differential

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A stage is a case's host, with an outside behind its default routes, and the container's namespace.
type stage struct {
	tc      *testCase
	host    *netsetuptest.Host
	outside *netsetuptest.Peer
	inside  *netsetuptest.Node // nil: it is gone
}

// Before a container's namespace gets its interface: duplicate address detection is over at once, with both sets of
// plugins, so that there is no waiting for it. What a plugin does of it still shows in accept_dad.
const atOnce = `for k in dad_transmits router_solicitation_delay; do echo 0 >/proc/sys/net/ipv6/conf/default/$k; done`

func newStage(t *testing.T, tc *testCase) *stage {
	t.Helper()
	s := &stage{tc: tc, host: netsetuptest.NewHost(t)}
	s.outside = s.host.Outside(t)
	s.host.Run(t, "sh", "-ec", atOnce+"\nip netns add "+containerID).OK(t)
	s.inside = s.host.Named(t, containerID)
	up := "ip link set lo up"
	if tc.down {
		up = ""
	}
	s.inside.Run(t, "sh", "-ec", strings.Join(append([]string{atOnce, up}, tc.inside...), "\n")).OK(t)
	if len(tc.host) > 0 {
		s.host.Run(t, "sh", "-ec", strings.Join(tc.host, "\n")).OK(t)
	}
	return s
}

// end removes the container's namespace: what netsetuptest then finds was left behind.
func (s *stage) end(t *testing.T) {
	t.Helper()
	if s.inside != nil {
		s.host.Run(t, "ip", "netns", "del", containerID).OK(t)
		s.inside = nil
	}
	s.host.Run(t, "sh", "-c", "umount /run/netns; rmdir /run/netns")
}

// facts are the state of the host, the container and the files once it has come to rest, beside what is known already.
func (s *stage) facts(t *testing.T, f facts) facts {
	t.Helper()
	nodes := s.nodes()
	for _, n := range nodes {
		awaitRest(t, n.Node)
	}
	names := newNames(s.tc)
	for _, n := range nodes {
		n.collect(t, f, names)
	}
	s.files(f)
	return names.apply(f)
}

// A place is one of a case's two nodes, by the word that facts call it.
type place struct {
	*netsetuptest.Node
	word string
}

func (s *stage) nodes() []place {
	nodes := []place{{s.host.Node, "host"}}
	if s.inside != nil {
		nodes = append(nodes, place{s.inside, "inside"})
	}
	return nodes
}

// awaitRest waits until the kernel has done what it does later: addresses leave the tentative state, devices come to the
// operational state that follows from their carrier.
func awaitRest(t *testing.T, n *netsetuptest.Node) {
	t.Helper()
	err := n.Do(func() error { return netsetuptest.Retry(netsetuptest.Patience/4, restless) })
	if err != nil {
		t.Logf("%s: %v", n.Name, err)
	}
}

func restless() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	up := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		const lowerUp = 1 << 16
		carrier := a.RawFlags&lowerUp != 0
		up[a.Index] = carrier
		switch running := a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown; {
		case a.RawFlags&1 == 0 && a.OperState != netlink.OperDown && a.OperState != netlink.OperLowerLayerDown,
			a.RawFlags&1 != 0 && carrier != running && a.OperState != netlink.OperDormant:
			return fmt.Errorf("%s: state is %v", a.Name, a.OperState)
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		const tentative, failed = 0x40, 0x08
		if a.Flags&tentative != 0 && a.Flags&failed == 0 && up[a.LinkIndex] {
			return fmt.Errorf("%v is tentative", a.IP)
		}
	}
	return nil
}

// containerAddrs are the addresses that ADD's last answer has, with the families' letters.
func (s *stage) addresses(t *testing.T) (addrs []netip.Addr) {
	t.Helper()
	_ = s.inside.Do(func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range list {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.Unmap().IsGlobalUnicast() {
				addrs = append(addrs, addr.Unmap())
			}
		}
		return err
	})
	return addrs
}
