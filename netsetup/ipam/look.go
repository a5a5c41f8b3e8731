package ipam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/nsinit/nsinit/netsetup"
)

// A Lease is an address of a network that somebody has.
type Lease struct {
	Address netip.Addr `json:"address"`
	Owner   string     `json:"owner,omitzero"`  // the container's id; "" = the file is damaged
	IfName  string     `json:"ifName,omitzero"` // the interface inside
}

// Leases returns the addresses of network that are taken. dir is its data directory;
// "" = DefaultDir.
func Leases(network, dir string) ([]Lease, error) {
	if dir == "" {
		dir = DefaultDir
	}
	dir = filepath.Join(dir, network)
	files, err := leasesOf(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("leases %s: %w", dir, err)
	}
	var leases []Lease
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.addr.String()))
		if err != nil {
			continue // given back meanwhile
		}
		l := Lease{Address: f.addr}
		l.Owner, l.IfName = parseLease(content)
		leases = append(leases, l)
	}
	return leases, nil
}

// Defaults returns the default networks as they are remembered, and makes none.
func Defaults(stateDir string) ([]*netsetup.Network, error) {
	var list []*netsetup.Network
	var faults []error
	for _, strategy := range []string{"bridge", "ptp"} {
		n, err := newDefault(stateDir, strategy).read()
		if n != nil {
			list = append(list, n)
		}
		faults = append(faults, err)
	}
	return list, errors.Join(faults...)
}

// Preview does what Fill does, but remembers nothing: a default network that isn't
// there yet has subnets that a start might choose.
func Preview(ctx context.Context, stateDir string, r *netsetup.Request) error {
	if r.Network != nil {
		return fillOwn(stateDir, r)
	}
	if r.Strategy != "bridge" && r.Strategy != "ptp" {
		return nil
	}
	d := newDefault(stateDir, r.Strategy)
	n, err := d.preview(ctx)
	if err == nil {
		r.Network, err = d.usable(n)
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", d.name, err)
	}
	return nil
}

func (d *defaultNetwork) preview(ctx context.Context) (*netsetup.Network, error) {
	n, err := d.read()
	if err != nil {
		return nil, err
	}
	var have pools
	if n != nil {
		if current, err := d.current(); current || err != nil {
			return n, err
		}
		if have, err = poolsOf(n); err != nil {
			return nil, err
		}
	}
	want, err := d.choose(ctx, have, n == nil)
	if err != nil {
		return nil, err
	}
	content, err := d.content(want)
	if err != nil {
		return nil, err
	}
	return netsetup.ParseNetwork(content, d.file())
}

// FreeSubnets chooses a private subnet of each family wanted that overlaps no route of
// the host and none of taken. Its namespace is that of the calling process.
func FreeSubnets(ctx context.Context, taken []netip.Prefix, v4, v6 bool) ([]netip.Prefix, error) {
	routes, err := kernel{}.routes(ctx)
	if err != nil {
		return nil, err
	}
	p, err := pools{}.fill(func(p netip.Prefix) bool {
		for _, t := range taken {
			if t.Overlaps(p) {
				return false
			}
		}
		return !usedBy(p, routes, 0)
	}, v4, v6)
	var list []netip.Prefix
	for _, subnet := range []netip.Prefix{p.v4, p.v6} {
		if subnet.IsValid() {
			list = append(list, subnet)
		}
	}
	return list, err
}

// Look returns what Allocate would, and takes nothing. taken are addresses that nobody shall get besides those that
// are leased.
func Look(p netsetup.Plan, taken []Lease) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	switch {
	case p.IPAM == "static":
		return p.IPs, p.Gateways, nil
	case p.IPAM != "host-local" || p.Network == nil:
		return nil, nil, nil
	}
	sets, err := rangeSets(p.Subnets)
	if err != nil {
		return nil, nil, err
	}
	wanted, err := assign(p.IPs, sets)
	if err != nil {
		return nil, nil, err
	}
	gateways = append(gateways, p.Gateways...)
	s := looker{dir: filepath.Join(DefaultDir, p.Network.Name), taken: taken}
	if p.DataDir != "" {
		s.dir = filepath.Join(p.DataDir, p.Network.Name)
	}
	for i, set := range sets {
		addr, gw, err := s.next(set, i, wanted[i])
		if err != nil {
			return nil, nil, err
		}
		addrs, gateways = append(addrs, addr), addGateway(gateways, gw)
	}
	return addrs, gateways, nil
}

// A looker reads a store's folder, which need not be there.
type looker struct {
	dir   string
	taken []Lease
}

func (s looker) has(a netip.Addr) bool {
	for _, l := range s.taken {
		if l.Address == a {
			return true
		}
	}
	_, err := os.Lstat(filepath.Join(s.dir, a.String()))
	return err == nil
}

func (s looker) next(set rangeSet, index int, wanted netip.Addr) (got netip.Prefix, gateway netip.Addr, err error) {
	try := func(a netip.Addr, r addrRange) (more bool) {
		if s.has(a) {
			return true
		}
		got, gateway = netip.PrefixFrom(a, r.subnet.Bits()), r.gateway
		return false
	}
	if wanted.IsValid() {
		r, _ := set.rangeOf(wanted)
		if try(wanted, r) {
			return got, gateway, fmt.Errorf("address %s: taken", wanted)
		}
		return got, gateway, nil
	}
	last, _ := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("last_reserved_ip.%d", index)))
	from, _ := netip.ParseAddr(string(last))
	set.candidates(from, try)
	if !got.IsValid() {
		err = fmt.Errorf("pool %s: empty; nsinit gc frees what killed containers left", set)
	}
	return got, gateway, err
}

// RemoveStore removes the folder of a network's leases. One that still has leases is an
// error.
func RemoveStore(ctx context.Context, network, dir string) error {
	if dir == "" {
		dir = DefaultDir
	}
	folder := filepath.Join(dir, network)
	if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := openLock(ctx, filepath.Join(folder, "lock"))
	if err != nil {
		return err
	}
	defer l.Close()
	leases, err := Leases(network, dir)
	if err != nil {
		return err
	}
	if len(leases) > 0 {
		return fmt.Errorf("leases %s: %s and %d more are taken, by container %q; end it", folder, leases[0].Address, len(leases)-1, leases[0].Owner)
	}
	return os.RemoveAll(folder)
}

// ForgetNetwork forgets the default network name, unless an address is leased.
func ForgetNetwork(ctx context.Context, stateDir, name string) error {
	for _, strategy := range []string{"bridge", "ptp"} {
		if d := newDefault(stateDir, strategy); d.name == name {
			_, err := d.forget(ctx)
			return err
		}
	}
	return nil
}
