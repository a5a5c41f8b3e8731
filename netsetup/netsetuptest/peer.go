package netsetuptest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Peer is another machine's network, linked to the Host by a veth of its own: eth0 at the peer's side. It
// has no routes but to that link, unless the test adds some.
type Peer struct {
	*Node
	HostIf         string     // the host's end
	HostV4, HostV6 netip.Addr // the host's addresses on the link
	V4, V6         netip.Addr // the peer's
}

// Beyond are addresses of the outside host that lie behind it, on its lo: "the internet".
var (
	BeyondV4 = netip.MustParseAddr("203.0.113.1")
	BeyondV6 = netip.MustParseAddr("2001:db8:ffff::1")
)

// Peer returns the peer called name (at most 10 bytes), and makes it at the first call.
func (h *Host) Peer(t testing.TB, name string) *Peer {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.peers[name]; p != nil {
		return p
	}
	p, err := h.makePeer(name, len(h.peers))
	if err != nil {
		t.Fatalf("peer %s: %v", name, err)
	}
	h.peers[name] = p
	return p
}

// Outside returns the peer that the host's default routes of both families lead to. It knows no way back to
// any network behind the host, so only what is masqueraded gets answers. It also holds BeyondV4 and
// BeyondV6.
func (h *Host) Outside(t testing.TB) *Peer {
	t.Helper()
	p := h.Peer(t, "outside")
	err := h.Do(func() error { return defaultRoutes(p) })
	if err == nil {
		err = p.Do(func() error { return addAddresses("lo", prefixOf(BeyondV4, 32), prefixOf(BeyondV6, 128)) })
	}
	if err != nil {
		t.Fatalf("outside: %v", err)
	}
	return p
}

func (h *Host) makePeer(name string, i int) (*Peer, error) {
	p := &Peer{
		Node:   &Node{Name: name, host: h},
		HostIf: "to-" + name,
		HostV4: netip.AddrFrom4([4]byte{198, 51, 100, byte(16*i + 1)}),
		HostV6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::1", i+1)),
	}
	p.V4, p.V6 = p.HostV4.Next(), p.HostV6.Next()
	var err error
	if p.netns, err = newNetns(); err != nil {
		return nil, err
	}
	err = h.Do(func() error { return p.link() })
	if err == nil {
		err = h.Do(func() error { return addAddresses(p.HostIf, prefixOf(p.HostV4, 28), prefixOf(p.HostV6, 64)) })
	}
	if err == nil {
		err = p.Do(func() error { return addAddresses("eth0", prefixOf(p.V4, 28), prefixOf(p.V6, 64)) })
	}
	if err == nil {
		err = p.Do(func() error { return linkUp("lo") })
	}
	// Until the kernel's link watch has run, a device drops what it is given to send.
	for n, name := range map[*Node]string{h.Node: p.HostIf, p.Node: "eth0"} {
		if err == nil {
			err = n.Do(func() error { return Retry(Patience, func() error { return operational(name) }) })
		}
	}
	// And a worker of the kernel's enters the local routes of IPv6 addresses without detection of duplicates.
	for n, addr := range map[*Node]netip.Addr{h.Node: p.HostV6, p.Node: p.V6} {
		if err == nil {
			err = n.Do(func() error { return Retry(Patience, func() error { return delivered(addr) }) })
		}
	}
	return p, err
}

func delivered(addr netip.Addr) error {
	routes, err := netlink.RouteGet(addr.AsSlice())
	if err == nil && (len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL) {
		err = fmt.Errorf("%s: no local route yet", addr)
	}
	return err
}

func operational(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil && link.Attrs().OperState != netlink.OperUp {
		err = fmt.Errorf("%s: state is %v", name, link.Attrs().OperState)
	}
	return err
}

// newNetns makes a network namespace on a thread that ends with it in hand.
func newNetns() (f *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return f, err
}

// link makes the pair, on a thread in the host's namespace.
func (p *Peer) link() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.HostIf
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.netns.Fd())})
}

// addAddresses gives name its addresses, without duplicate address detection, and brings it up.
func addAddresses(name string, prefixes ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, prefix := range prefixes {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("%s: add address %v: %w", name, prefix, err)
		}
	}
	// The link-local address is usable at once as well.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0)
	return linkUp(name)
}

func defaultRoutes(p *Peer) error {
	link, err := netlink.LinkByName(p.HostIf)
	if err != nil {
		return err
	}
	for _, gw := range []netip.Addr{p.V4, p.V6} {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(all), Gw: net.IP(gw.AsSlice())}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("default route by %v: %w", gw, err)
		}
	}
	return nil
}

func prefixOf(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
