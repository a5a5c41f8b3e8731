package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
)

// ReservePorts takes the host's ports of mappings for owner, before anything else is made: no
// other container of nsinit has them, and no program of the host listens there. The error says
// who does. A host port of 0 is replaced by one that is free.
//
// Between this look and the packets' turn another program may begin to listen on a port; it is
// then reached by nobody but by way of addresses that are not published. Nothing holds the port
// for the container but nsinit's record.
func ReservePorts(ctx context.Context, owner, network string, mappings []netsetup.PortMapping, opt Options, record netsetup.Recorder) error {
	if len(mappings) == 0 {
		return nil
	}
	lock, err := takeNamed(ctx, opt.StateDir, portsLock)
	if err != nil {
		return err
	}
	defer lock.release()
	taken, err := takenPorts(opt)
	if err != nil {
		return err
	}
	r := reservation{owner: owner, opt: opt, taken: taken}
	var e elements
	for i := range mappings {
		if err := r.choose(&mappings[i]); err != nil {
			return err
		}
		p := publishedOf(mappings[i])
		o := netsetup.Object{Kind: KindPort, Network: network, Name: p.String(), Owner: owner}
		if err := record(o); err != nil {
			return fmt.Errorf("%s: record: %w", o.Name, err)
		}
		r.taken = append(r.taken, p)
		e.take(o)
	}
	_, err = addElements(ctx, network, e, opt)
	return err
}

// takenPorts are those of all containers: what the table says, since one dump costs less than
// reading each container's record, or else the records.
func takenPorts(opt Options) ([]published, error) {
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: read taken ports: %w", explain(err))
	}
	elements, there, err := elementsOf(conn, newTable().publish.taken)
	if err != nil {
		return nil, err
	}
	var all []published
	for _, el := range elements {
		if p, ok := takenOf(el.Key); ok {
			all = append(all, p)
		}
	}
	if there {
		// The kernel's order is that of a hash: of two families that are taken, errors name IPv4.
		slices.SortFunc(all, func(p, q published) int {
			return cmp.Or(p.host.Compare(q.host), cmp.Compare(p.first, q.first))
		})
		return all, nil
	}
	objects, err := recorded(opt)
	for _, o := range objects {
		if p, bad := parsePublished(o.Name); o.Kind == KindPort && bad == nil {
			all = append(all, p)
		}
	}
	return all, err
}

// A reservation looks for ports for one container.
type reservation struct {
	owner string
	opt   Options
	taken []published
}

// Free ports are looked for where the kernel takes none for connections of the host's own,
// unless someone moved its range (net.ipv4.ip_local_port_range ends at 60999).
const (
	firstFree   = 61000
	lastFree    = 65535
	chooseTries = 200
)

// choose finds out whether m's ports are free, or finds free ones.
func (r *reservation) choose(m *netsetup.PortMapping) error {
	if m.HostPort > 0 {
		return r.free(publishedOf(*m))
	}
	n := max(m.Count, 1)
	low := min(firstFree, lastFree+1-n)
	if low < 1024 {
		return fmt.Errorf("--publish %s: too many ports for free ones to be found; name the first host port", m)
	}
	var err error
	for range chooseTries {
		try := *m
		try.HostPort = low + rand.IntN(lastFree+1-n-low+1)
		if r.holder(publishedOf(try)) != nil {
			continue
		}
		if err = probe(publishedOf(try)); err == nil {
			*m = try
			return nil
		}
	}
	return fmt.Errorf("no %d free host ports for %s in %d-%d; name the first host port", n, m, low, lastFree)
}

func (r *reservation) free(p published) error {
	if q := r.holder(p); q != nil {
		who := r.who(*q)
		switch {
		case who == r.owner && who != "":
			return nil // again
		case who == "":
			return fmt.Errorf("host port %s: a container of nsinit had it, whose record is gone; run nsinit network reload", p)
		}
		return fmt.Errorf("host port %s: container %q has it (%s); another host port, or end that one: %w", p, who, q, unix.EADDRINUSE)
	}
	if r.opt.RuntimeListens {
		return nil
	}
	return probe(p)
}

// holder returns a taken range that overlaps p.
func (r *reservation) holder(p published) *published {
	if i := slices.IndexFunc(r.taken, p.overlaps); i >= 0 {
		return &r.taken[i]
	}
	return nil
}

// who asks the records whose q is; "" = nobody's.
func (r *reservation) who(q published) string {
	objects, err := recorded(r.opt)
	if err != nil {
		return ""
	}
	for _, o := range objects {
		if p, bad := parsePublished(o.Name); o.Kind == KindPort && bad == nil && p.overlaps(q) {
			return o.Owner
		}
	}
	return ""
}

// probe binds to each port for a moment, as a program would that listens there.
func probe(p published) error {
	for port := int(p.first); port <= int(p.last); port++ {
		err := bindOnce(p.host, p.proto, port)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			one := p
			one.first, one.last = uint16(port), uint16(port)
			return fmt.Errorf("host port %s: another program has it (ss -Hlnp 'sport = %d' shows which); another host port, or end that program: %w",
				one, port, err)
		case err != nil:
			return fmt.Errorf("host port %s: %w", p, err)
		}
	}
	return nil
}

// bindOnce is nil for a protocol that the host has no sockets of: then nobody has the port.
func bindOnce(host netip.Addr, proto byte, port int) error {
	kind := unix.SOCK_STREAM
	if proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET6
	if host.Is4() {
		family = unix.AF_INET
	}
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, int(proto))
	if errors.Is(err, unix.EAFNOSUPPORT) && !host.IsValid() { // no IPv6 at all
		family, host = unix.AF_INET, netip.IPv4Unspecified()
		s, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, int(proto))
	}
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if proto != unix.IPPROTO_UDP {
		// Connections that have ended keep the port for a minute, which is no one's listening.
		if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	// An address may come to the host later, as a virtual one does.
	_ = unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_FREEBIND, 1)
	if family == unix.AF_INET {
		return unix.Bind(s, &unix.SockaddrInet4{Port: port, Addr: host.As4()})
	}
	only := 0 // of all addresses of both families, unless the host's is one of IPv6
	if host.IsValid() {
		only = 1
		_ = unix.SetsockoptInt(s, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	} else {
		host = netip.IPv6Unspecified()
	}
	if err := unix.SetsockoptInt(s, unix.SOL_IPV6, unix.IPV6_V6ONLY, only); err != nil {
		return err
	}
	return unix.Bind(s, &unix.SockaddrInet6{Port: port, Addr: host.As16()})
}
