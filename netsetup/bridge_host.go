package netsetup

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ensureBridge returns the network's bridge, up and with the gateway's addresses. A
// bridge that has them costs a look-up and a list of its own addresses. One that
// is half made, by another starter at this moment or by one that was killed, is
// finished: every request here may be made twice. made tells whether there was none.
func (h *Host) ensureBridge(p Plan, addrs []netip.Prefix, record Recorder) (br link, made bool, err error) {
	br, err = h.c.linkByName(p.Bridge)
	if errors.Is(err, unix.ENODEV) {
		made = true
		br, err = h.makeBridge(p, record)
	}
	if err == nil && br.kind == "bridge" && unnamed(br) {
		br, err = h.nameBridge(p)
	}
	if err != nil {
		return br, made, err
	}
	if br.kind != "bridge" {
		return br, made, fmt.Errorf("%s: not a bridge but %s; give the network another name for its bridge", p.Bridge, kindOf(br))
	}
	if port := p.port(); port.filtered() {
		if br, err = h.filterVLANs(br); err != nil {
			return br, made, err
		}
	}
	if err := h.readyGateways(br, p, gatewayAddrs(p, addrs), record); err != nil {
		return br, made, err
	}
	h.warnOf(br, p)
	return br, made, nil
}

// readyGateways sets br up, with the gateway's addresses on it or on the device for
// the port's VLAN.
func (h *Host) readyGateways(br link, p Plan, wanted []netip.Prefix, record Recorder) error {
	if p.port().GatewayIf == "" {
		return h.readyGateway(br, p, wanted)
	}
	if err := h.readyGateway(br, p, nil); err != nil {
		return err
	}
	return h.ensureGatewayIf(br, p, wanted, record)
}

// readyGateway sets l up with its settings and the gateway's addresses.
func (h *Host) readyGateway(l link, p Plan, wanted []netip.Prefix) error {
	missing, err := h.missingAddrs(l, p, wanted)
	if err == nil {
		err = h.finishBridge(l, p, missing)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return nil
}

func kindOf(l link) string {
	if l.kind == "" {
		return "a device of another kind"
	}
	return "a device of kind " + l.kind
}

// warnOf tells what makes a bridge that somebody else made a bad one.
func (h *Host) warnOf(br link, p Plan) {
	if br.stp {
		h.Warn(fmt.Sprintf("bridge %s: its spanning tree protocol keeps %s cut off for the first %d s",
			br.name, p.IfName, 2*br.forwardDelay/100))
	}
	if p.MTU > br.mtu {
		h.Warn(fmt.Sprintf("bridge %s: its MTU is %d, and it drops what %s sends with %d", br.name, br.mtu, p.IfName, p.MTU))
	}
}

// makeBridge makes the bridge with a MAC address of its own: without, it takes the
// lowest of its ports', and its neighbours lose it whenever a container comes or
// goes.
func (h *Host) makeBridge(p Plan, record Recorder) (link, error) {
	mtu, err := h.bridgeMTU(p)
	if err != nil {
		return link{}, err
	}
	if err := record(Object{Kind: "bridge", Network: p.networkName(), Name: p.Bridge}); err != nil {
		return link{}, err
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	if port := p.port(); port.filtered() {
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(1))
	}
	err = h.c.addLink(ifinfo(0, 0, 0), nameAttr(p.Bridge), mtuAttr(otherMTU(mtu)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, bridgeMAC(p.Bridge)), info)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return link{}, fmt.Errorf("%s: make bridge: %w", p.Bridge, noFiltering(err))
	}
	if err != nil && !errors.Is(err, unix.EEXIST) { // EEXIST: another starter was faster
		return link{}, fmt.Errorf("%s: make bridge: %w", p.Bridge, err)
	}
	return h.c.linkByName(p.Bridge)
}

func (h *Host) bridgeMTU(p Plan) (int, error) {
	if p.MTU != 0 {
		return p.MTU, nil
	}
	mtu, err := h.uplinkMTU()
	if err != nil {
		return 0, fmt.Errorf("%s: MTU of the uplink: %w", p.Bridge, err)
	}
	return mtu, nil
}

// otherMTU is what a bridge is made with. It follows the smallest MTU of its ports
// until its own is changed by a request, and the one that makes it is none
// (br_change_mtu, br_mtu_auto_adjust).
func otherMTU(mtu int) int {
	if mtu > minMTU {
		return mtu - 1
	}
	return mtu + 1
}

// unnamed says that br is one of nsinit's that was made and not finished.
func unnamed(br link) bool { return br.alias == "" && br.mac.String() == bridgeMAC(br.name).String() }

// nameBridge gives a new bridge its MTU, and the alias that tells Undo whose it is.
func (h *Host) nameBridge(p Plan) (link, error) {
	mtu, err := h.bridgeMTU(p)
	if err != nil {
		return link{}, err
	}
	err = h.c.setLink(ifinfo(0, 0, 0), nameAttr(p.Bridge), mtuAttr(mtu),
		nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(bridgeAlias(p.networkName()))))
	if err != nil {
		return link{}, fmt.Errorf("%s: set alias and MTU %d: %w", p.Bridge, mtu, err)
	}
	return h.c.linkByName(p.Bridge)
}

func bridgeAlias(network string) string {
	return strings.ToValidUTF8((aliasPrefix + "network " + network)[:min(len(aliasPrefix)+8+len(network), 255)], "")
}

// bridgeMAC is the same each time that the bridge is made again, so that neighbours
// keep their entries, but another one on another host and in another namespace:
// bridges of one name are often linked to each other.
func bridgeMAC(name string) net.HardwareAddr {
	hash := fnv.New64a()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var inode uint64
	if ns, err := currentNetNS(); err == nil {
		inode, _ = ns.id()
		_ = ns.Close()
	}
	_, _ = fmt.Fprintf(hash, "%s\n%d\n%s", boot, inode, name)
	return append(net.HardwareAddr{0x06}, hash.Sum(nil)[:5]...)
}

// missingAddrs compares the bridge's addresses with those of the gateways. One that
// is in the way is an error, or is removed with forceAddress: IPv4 has one, IPv6
// one a subnet, as the CNI plugin has it.
func (h *Host) missingAddrs(br link, p Plan, wanted []netip.Prefix) (missing []netip.Prefix, err error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	have, err := h.c.addrs(br.index)
	if err != nil {
		return nil, err
	}
	for _, want := range wanted {
		found := false
		for _, a := range have {
			if a.prefix == want {
				found = true
				continue
			}
			if !inTheWay(a.prefix, want, wanted) {
				continue
			}
			if !p.ForceAddress {
				return nil, fmt.Errorf("has address %s, and the network's gateway is %s; set forceAddress to replace it, or name another bridge", a.prefix, want)
			}
			if err := h.c.delAddr(br.index, a.prefix); err != nil {
				return nil, err
			}
		}
		if !found {
			missing = append(missing, want)
		}
	}
	return missing, nil
}

func inTheWay(have, want netip.Prefix, wanted []netip.Prefix) bool {
	if have.Addr().Is4() != want.Addr().Is4() {
		return false
	}
	if slices.Contains(wanted, have) {
		return false
	}
	return have.Addr().Is4() || have.Overlaps(want)
}

// gatewayAddrs returns the addresses that the bridge is to have.
func gatewayAddrs(p Plan, addrs []netip.Prefix) (wanted []netip.Prefix) {
	if !p.Gateway {
		return nil
	}
	for _, a := range addrs {
		if gw := p.subnetGateway(a); gw.IsValid() && a.Contains(gw) {
			wanted = append(wanted, netip.PrefixFrom(gw, a.Bits()))
		}
	}
	return wanted
}

// finishBridge writes the settings, then adds addresses, then sets the bridge up:
// whoever finds one of ours up with its addresses finds it ready.
func (h *Host) finishBridge(br link, p Plan, missing []netip.Prefix) error {
	ours := br.alias == bridgeAlias(p.networkName())
	ready := br.up() && len(missing) == 0
	// A bridge that somebody else made may be the host's way out, and live on router
	// advertisements; not so one that carries a network's gateway.
	if (!ours || !ready) && (p.Gateway || !br.up()) {
		if err := h.c.ownRoutes(br.name, !ours && br.up()); err != nil {
			return err
		}
	}
	for _, a := range missing {
		err := h.c.addUsable(br, a, unix.IFA_F_NODAD)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	flags := uint32(unix.IFF_UP)
	if p.Promiscuous && br.name == p.Bridge {
		flags |= unix.IFF_PROMISC
	}
	if br.flags&flags == flags {
		return nil
	}
	if err := h.c.setLink(ifinfo(br.index, flags, flags)); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// undoBridge removes a bridge that nsinit made, unless something is connected to it.
func (h *Host) undoBridge(ctx context.Context, o Object) error {
	br, err := h.c.linkByName(o.Name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if br.kind != "bridge" || br.alias != bridgeAlias(o.Network) && !unnamed(br) {
		return nil // somebody else's, who took the name
	}
	ports, err := h.lastingPorts(ctx, br)
	if err != nil {
		return err
	}
	if len(ports) > 0 {
		return fmt.Errorf("%s: delete: %s and %d more are connected to it: %w", o.Name, ports[0].name, len(ports)-1, unix.EBUSY)
	}
	if err := h.c.delLink(br.index); err != nil {
		return fmt.Errorf("%s: delete: %w", o.Name, err)
	}
	return nil
}

// The kernel frees a dead container's devices late, with its namespace.
const (
	freedLimit = time.Second
	freedPause = 10 * time.Millisecond
)

// lastingPorts returns the ports that don't go by themselves or with br. It waits for
// containers' ends as long as the kernel may take to free them.
func (h *Host) lastingPorts(ctx context.Context, br link) ([]link, error) {
	for deadline := time.Now().Add(freedLimit); ; time.Sleep(freedPause) {
		ports, err := h.c.ports(br.index)
		if err == nil {
			err = h.dropGatewayIfs(br, &ports)
		}
		if err != nil {
			return nil, err
		}
		others := slices.ContainsFunc(ports, func(l link) bool { return !strings.HasPrefix(l.alias, aliasPrefix) })
		if len(ports) == 0 || others || time.Now().After(deadline) {
			return ports, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}
