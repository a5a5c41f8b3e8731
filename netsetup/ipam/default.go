package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
)

// The default networks, and the bridge of the one that has one.
const (
	DefaultName   = "nsinit"
	DefaultBridge = "nsinit0"
	DefaultPtP    = "nsinit-ptp"
)

// DefaultNetwork returns the network behind `--network bridge`: its subnets
// overlap no route of the host, and are remembered in stateDir. A host that has
// them reads one small file. As long as the bridge isn't there they are compared
// with the host's routes again, and chosen anew if something came in their way.
//
// h's namespace is that of the calling process.
func DefaultNetwork(ctx context.Context, h *netsetup.Host, stateDir string) (*netsetup.Network, error) {
	return newDefault(stateDir, "bridge").network(ctx)
}

// Fill gives r its network if the flag named none: `bridge` and `ptp` have a
// default one each. A request for `bridge` with an address of the default
// network's subnet means that network, and no second bridge with the same subnet.
func Fill(ctx context.Context, h *netsetup.Host, stateDir string, r *netsetup.Request) error {
	if r.Network != nil {
		return fillOwn(stateDir, r)
	}
	if r.Strategy != "bridge" && r.Strategy != "ptp" {
		return nil
	}
	n, err := newDefault(stateDir, r.Strategy).network(ctx)
	if err != nil {
		return err
	}
	r.Network = n
	return nil
}

// fillOwn puts a request that the flag built a network for into the default
// network if all its addresses are of that network's subnets.
func fillOwn(stateDir string, r *netsetup.Request) error {
	if r.Strategy != "bridge" || !netsetup.OwnSubnet(*r) {
		return nil
	}
	d := newDefault(stateDir, "bridge")
	n, err := d.read()
	if err != nil || n == nil {
		return err
	}
	pools, err := poolsOf(n)
	if err != nil {
		return err
	}
	for _, ip := range r.IPs {
		if !pools.has(ip.Masked()) {
			return nil
		}
	}
	r.Network = n
	return nil
}

// Forget removes the remembered default networks that hold no lease, for
// `gc --all`, and returns their names.
func Forget(ctx context.Context, stateDir string) ([]string, error) {
	var gone []string
	var faults []error
	for _, strategy := range []string{"bridge", "ptp"} {
		d := newDefault(stateDir, strategy)
		ok, err := d.forget(ctx)
		if ok {
			gone = append(gone, d.name)
		}
		faults = append(faults, err)
	}
	return gone, errors.Join(faults...)
}

// A defaultNetwork is where and how a default network is remembered, and what
// of the host it looks at.
type defaultNetwork struct {
	strategy string
	name     string
	bridge   string // "" = none: nothing tells cheaply that the network is in use
	dir      string // of the remembered networks
	leases   string // data directory
	host     routeSource
}

func newDefault(stateDir, strategy string) *defaultNetwork {
	d := &defaultNetwork{
		strategy: strategy, name: DefaultName, bridge: DefaultBridge,
		dir: filepath.Join(stateDir, "networks"), leases: DefaultDir, host: kernel{},
	}
	if strategy == "ptp" {
		d.name, d.bridge = DefaultPtP, ""
	}
	return d
}

func (d *defaultNetwork) file() string { return filepath.Join(d.dir, d.name+".json") }

// network returns the network, made or made anew if need be.
func (d *defaultNetwork) network(ctx context.Context) (*netsetup.Network, error) {
	n, err := d.read()
	if err == nil && n != nil {
		var current bool
		if current, err = d.current(); current {
			return d.usable(n)
		}
	}
	if err == nil {
		n, err = d.settle(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", d.name, err)
	}
	return d.usable(n)
}

// read returns the remembered network, nil if there is none.
func (d *defaultNetwork) read() (*netsetup.Network, error) {
	n, err := netsetup.LoadNetwork(d.file(), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if _, unread := errors.AsType[unix.Errno](err); unread { // nothing is wrong with the file
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w; remove the file to have the network made anew", err)
	}
	n.OwnBridge = d.bridge != ""
	return n, nil
}

// current says whether the network's bridge is there, so that its subnets are
// among the host's routes and nobody has to look.
func (d *defaultNetwork) current() (bool, error) {
	if d.bridge == "" {
		return true, nil
	}
	i, err := d.host.index(d.bridge)
	return i != 0, err
}

// settle chooses the subnets, or compares the remembered ones with the host's
// routes, one process at a time.
func (d *defaultNetwork) settle(ctx context.Context) (*netsetup.Network, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	l, err := openLock(ctx, d.dir)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	n, err := d.read() // another process may have been first
	if err != nil {
		return nil, err
	}
	var have pools
	if n != nil {
		if have, err = poolsOf(n); err != nil {
			return nil, err
		}
	}
	want, err := d.choose(ctx, have, n == nil)
	if err != nil {
		return nil, err
	}
	if n != nil && want == have {
		return n, nil
	}
	return d.write(want)
}

// choose returns have as far as it is free, and new subnets for what is not. A
// family that somebody took out of the file stays out.
func (d *defaultNetwork) choose(ctx context.Context, have pools, first bool) (pools, error) {
	routes, err := d.host.routes(ctx)
	if err != nil {
		return have, err
	}
	var bridge int
	if d.bridge != "" { // the name's turn comes after the dump: somebody may have made it meanwhile
		if bridge, err = d.host.index(d.bridge); err != nil {
			return have, err
		}
	}
	other, err := d.others()
	if err != nil {
		return have, err
	}
	free := func(p netip.Prefix) bool {
		return !usedBy(p, routes, bridge) && !p.Overlaps(other.v4) && !p.Overlaps(other.v6)
	}
	if first {
		return pools{}.fill(free, true, true)
	}
	want := have
	for _, p := range []*netip.Prefix{&want.v4, &want.v6} {
		if r, used := inTheWay(*p, routes, bridge); used {
			if err := d.mayMove(*p, r); err != nil {
				return have, err
			}
			*p = netip.Prefix{}
		}
	}
	return want.fill(free, have.v4.IsValid(), have.v6.IsValid())
}

// others returns the subnets of the other default network, which has no route
// while none of its containers runs.
func (d *defaultNetwork) others() (pools, error) {
	strategy := "bridge"
	if d.strategy == "bridge" {
		strategy = "ptp"
	}
	other := newDefault("", strategy)
	other.dir = d.dir
	n, err := other.read()
	if err != nil || n == nil {
		return pools{}, err
	}
	return poolsOf(n)
}

// mayMove refuses to move a network whose addresses somebody uses.
func (d *defaultNetwork) mayMove(p netip.Prefix, r hostRoute) error {
	leases, err := leasesOf(filepath.Join(d.leases, d.name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(leases) == 0 {
		return nil
	}
	return fmt.Errorf("subnet %s: the host's route %s is in the way, and %d addresses are leased, as %s; end those containers (nsinit list, nsinit gc) and start again, for another subnet",
		p, r.describe(d.host), len(leases), leases[0].addr)
}

func (d *defaultNetwork) content(p pools) ([]byte, error) {
	content, err := json.MarshalIndent(d.list(p), "", "  ")
	return append(content, '\n'), err
}

// write remembers the network with the subnets p. The file is whole or not there.
func (d *defaultNetwork) write(p pools) (*netsetup.Network, error) {
	content, err := d.content(p)
	if err != nil {
		return nil, err
	}
	temp := d.file() + ".tmp" // one name, under the lock: a killed run leaves no second
	gate.Change()
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	gate.Change()
	if err := os.Rename(temp, d.file()); err != nil {
		return nil, err
	}
	return d.read()
}

// forget removes the file unless an address is leased.
func (d *defaultNetwork) forget(ctx context.Context) (bool, error) {
	if _, err := os.Lstat(d.file()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	l, err := openLock(ctx, d.dir)
	if err != nil {
		return false, err
	}
	defer l.Close()
	leases, err := leasesOf(filepath.Join(d.leases, d.name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if len(leases) > 0 {
		return false, nil
	}
	gate.Change()
	if err := os.Remove(d.file()); err != nil {
		return false, fmt.Errorf("network %s: %w", d.name, err)
	}
	return true, nil
}

// usable returns n without what this kernel has not: IPv6, where it was left out
// or switched off at boot.
func (d *defaultNetwork) usable(n *netsetup.Network) (*netsetup.Network, error) {
	if d.host.ipv6() {
		return n, nil
	}
	p, err := poolsOf(n)
	if err != nil {
		return nil, err
	}
	p.v6 = netip.Prefix{}
	raw, err := json.Marshal(d.list(p).Plugins[0])
	if err != nil {
		return nil, err
	}
	v4 := *n
	v4.Plugins = []netsetup.Plugin{{Type: d.strategy, Raw: raw}}
	return &v4, nil
}
