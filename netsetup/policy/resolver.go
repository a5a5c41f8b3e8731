package policy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

const dnsPort = 53

// ErrNoRelay is wrapped by Resolver's error when there is no way from the container
// to the host's resolver; the container needs one by --dns.
var ErrNoRelay = errors.New("the host's resolver can't be reached from the container: give one with --dns")

// Resolver makes a resolver that listens on the host's loopback usable by the
// container of a: what the container sends to port 53 (UDP and TCP) of its gateway
// arrives at the first IPv4 address of upstream, with 127.0.0.1 as its source, since
// resolvers refuse others. It returns the gateway, the container's name server.
//
// It takes net.ipv4.conf.DEVICE.route_localnet, which opens the host's loopback to the
// network's device. The table closes it again for all but these queries, before the
// sysctl is set. Both are recorded in opt.StateDir, told to h.Warn, and given back by
// UndoHost.
//
// Where a service of the host has the port at the gateway's address, or at all
// addresses, nothing is done: the queries are its. One that starts to listen there
// later, on a network whose queries are relayed already, doesn't get them.
//
// An upstream of IPv6 can't be relayed, as the kernel has no such sysctl for ::1.
// Then, and without an IPv4 address or gateway, or a device on the host, the error wraps
// ErrNoRelay.
func Resolver(ctx context.Context, h *netsetup.Host, a netsetup.Attachment, owner string, upstream []netip.AddrPort, opt Options, record netsetup.Recorder) (gateway netip.Addr, err error) {
	gateway, err = resolver(ctx, h, a, owner, upstream, opt, record)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolver: network %s: %w", a.Network, err)
	}
	return gateway, nil
}

func resolver(ctx context.Context, h *netsetup.Host, a netsetup.Attachment, owner string, upstream []netip.AddrPort, opt Options, record netsetup.Recorder) (netip.Addr, error) {
	l, err := linkOf(a)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", err, ErrNoRelay)
	}
	queries, err := queriesOf(a, upstream)
	if err != nil {
		return netip.Addr{}, err
	}
	gateway := queries[0].gateway
	if taken, err := served(gateway); err != nil || taken {
		return gateway, err
	}
	var names []string
	for _, q := range queries {
		names = append(names, q.String())
	}
	var e elements
	for _, o := range l.objects(KindResolver, names, owner) {
		if err := record(o); err != nil {
			return gateway, fmt.Errorf("%s: record: %w", o.Name, err)
		}
		e.take(o)
	}
	return gateway, relayTo(ctx, h, l, queries, e, opt)
}

func relayTo(ctx context.Context, h *netsetup.Host, l hostLink, queries []query, e elements, opt Options) error {
	made, err := addElements(ctx, l.network, e, opt)
	// The map has another resolver for this container. The number for that changed.
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		old := remove(newTable().relayed)
		for _, q := range queries {
			old.elements = append(old.elements, q.key())
		}
		if err := removeElements(ctx, l.network, []elementChange{old}); err != nil {
			return err
		}
		made, err = addElements(ctx, l.network, e, opt)
	}
	if err != nil {
		return err
	}
	opened, err := openLoopback(ctx, h, l, opt, "the host's resolver listens on the loopback", "; `nsinit gc --all` undoes it, --dns ADDRESS avoids it")
	if err != nil {
		return err
	}
	if made || opened {
		warnForeign(ctx, h, l.device)
	}
	return nil
}

// queriesOf returns what a's container sends: one way for each of its IPv4 addresses.
func queriesOf(a netsetup.Attachment, upstream []netip.AddrPort) ([]query, error) {
	var to netip.AddrPort
	for _, u := range upstream {
		if u := netip.AddrPortFrom(u.Addr().Unmap(), u.Port()); u.Addr().Is4() && u.Addr().IsLoopback() {
			to = u
			break
		}
	}
	if !to.IsValid() {
		return nil, fmt.Errorf("%v: none is IPv4 on the loopback: %w", upstream, ErrNoRelay)
	}
	var gateway netip.Addr
	for _, g := range a.Gateways {
		if g = g.Unmap(); g.Is4() && !gateway.IsValid() {
			gateway = g
		}
	}
	var queries []query
	for _, p := range a.Addresses {
		if addr := p.Addr().Unmap(); addr.Is4() && gateway.IsValid() {
			queries = append(queries, query{addr, gateway, to})
		}
	}
	if len(queries) == 0 {
		return nil, fmt.Errorf("no IPv4 address or gateway: %w", ErrNoRelay)
	}
	return queries, nil
}

// openLoopback sets route_localnet on the device, if it is not. why and remedy are for the line
// that tells of it.
func openLoopback(ctx context.Context, h *netsetup.Host, l hostLink, opt Options, why, remedy string) (bool, error) {
	s := routeLocal(l.device)
	if was, err := s.read(); err != nil || was == "1" {
		return false, err
	}
	if !l.lasting {
		_ = setGuard(l.device) // see below
		return false, s.write("1")
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return false, err
	}
	defer lock.release()
	was, err := s.read()
	if err != nil || was == "1" { // by another start, meanwhile
		return false, err
	}
	ledger, err := readLedger(opt.StateDir)
	if err != nil {
		return false, err
	}
	ledger.append(change{Sysctl: s, Was: was, Now: "1"})
	ledger.guard(l.device)
	if err := ledger.save(); err != nil {
		return false, err
	}
	guard := ""
	if err := setGuard(l.device); err != nil {
		guard = fmt.Sprintf(" (only while the table inet %s is there: no second guard, %v)", tableName, err)
	}
	if err := s.write("1"); err != nil {
		return false, err
	}
	h.Warn(fmt.Sprintf("%s; for the network %s nsinit set %s=1 and lets through nothing else%s%s", why, l.network, s, guard, remedy))
	return true, nil
}

// served tells whether a socket of the host has UDP port 53 at addr, or at every IPv4
// address. A socket of IPv6 that has it at every address is not counted: resolvers
// make it one of IPv6 only, and where not, it has the loopback's too.
func served(addr netip.Addr) (bool, error) {
	data, err := os.ReadFile("/proc/thread-self/net/udp")
	if err != nil {
		return false, fmt.Errorf("sockets of the host: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		local, ok := parseSocket(fields[1])
		if ok && local.Port() == dnsPort && (local.Addr() == addr || local.Addr().IsUnspecified()) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// parseSocket reads ADDRESS:PORT of /proc/net/udp: the address as the hexadecimal
// value of a word of memory, the port as a number.
func parseSocket(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	a, err1 := hex.DecodeString(host)
	p, err2 := hex.DecodeString(port)
	if !ok || err1 != nil || err2 != nil || len(a) != 4 || len(p) != 2 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(wordAddr(a), uint16(p[0])<<8|uint16(p[1])), true
}

// relayedTo is the element of a way to a resolver, or of a device that is gone.
func (t table) relayedTo(name string) []elementChange {
	if q, err := parseQuery(name); err == nil {
		return []elementChange{remove(t.relayed, q.key())}
	}
	return []elementChange{remove(t.local, nameElement(name))}
}

// wordAddr turns the value of a word, most significant byte first, into the address
// that lies in memory: both of nsinit's architectures are little-endian, others may
// follow.
func wordAddr(value []byte) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(value))
	return netip.AddrFrom4(b)
}
