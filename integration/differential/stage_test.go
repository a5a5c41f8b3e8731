package differential

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A stage is a case's host, with an outside behind its default routes, and the container's namespace.
type stage struct {
	tc           *testCase
	outside      *netsetuptest.Peer
	machine      *netsetuptest.Host
	host, inside *place // inside is nil when it is gone
}

func newStage(t *testing.T, tc *testCase) *stage {
	t.Helper()
	s := &stage{tc: tc, machine: netsetuptest.NewHost(t)}
	s.outside = s.machine.Outside(t)
	if err := s.nameNamespace(); err != nil {
		t.Fatal(err)
	}
	inside := s.machine.Named(t, containerID)
	for n, lo := range map[*netsetuptest.Node]bool{s.machine.Node: false, inside: !tc.down} {
		if err := n.Do(func() error { return settle(lo) }); err != nil {
			t.Fatal(err)
		}
	}
	for n, commands := range map[*netsetuptest.Node][]string{s.machine.Node: tc.host, inside: tc.inside} {
		if len(commands) > 0 {
			n.Run(t, "sh", "-ec", strings.Join(commands, "\n")).OK(t)
		}
	}
	s.host, s.inside = newPlace(t, s.machine.Node, "host"), newPlace(t, inside, "inside")
	return s
}

// nameNamespace is "ip netns add".
func (s *stage) nameNamespace() error {
	var fd int
	err := s.machine.Do(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.machine.DoInside(func() error {
		// Not by a path below /proc: the host's has no entry for this process.
		tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		const dir, path = "/run/netns", "/run/netns/" + containerID
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, nil, 0o444)); err != nil {
			return err
		}
		return unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// settle has duplicate address detection over at once in the thread's namespace, so that nobody waits for it. What a
// plugin does of it still shows in accept_dad.
func settle(lo bool) error {
	for _, key := range []string{"dad_transmits", "router_solicitation_delay"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/"+key, []byte("0"), 0); err != nil {
			return err
		}
	}
	if !lo {
		return nil
	}
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// vanish removes the container's namespace.
func (s *stage) vanish(t *testing.T) {
	t.Helper()
	s.inside.close()
	s.inside = nil
	err := s.machine.DoInside(func() error {
		return errors.Join(unix.Unmount("/run/netns/"+containerID, unix.MNT_DETACH), os.Remove("/run/netns/"+containerID))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// end takes down what the stage made itself: what netsetuptest then finds was left behind.
func (s *stage) end(t *testing.T) {
	t.Helper()
	if s.inside != nil {
		s.vanish(t)
	}
	s.host.close()
	if len(s.tc.after) > 0 {
		s.machine.Run(t, "sh", "-ec", strings.Join(s.tc.after, "\n")).OK(t)
	}
	if err := s.machine.DoInside(func() error { return os.RemoveAll("/run/netns") }); err != nil {
		t.Error(err)
	}
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

func (s *stage) nodes() []*place {
	if s.inside == nil {
		return []*place{s.host}
	}
	return []*place{s.host, s.inside}
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
		// Of these, unknown means that the kernel has not looked yet.
		unknown := a.OperState == netlink.OperUnknown && !slices.Contains([]string{"bridge", "veth", "vlan", "macvlan"}, l.Type())
		switch running := a.OperState == netlink.OperUp || unknown; {
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

// addresses are the container's global addresses.
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
