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

// Held returns the addresses that the interface of a container has in a network. It
// reads every lease of the network, as host-local does; dir "" is host-local's own.
func Held(dir, network, id, ifName string) (held []netip.Addr, err error) {
	all, err := Leased(dir, network)
	for _, o := range all {
		// Old versions of host-local left the interface out.
		if addr, notAddress := netip.ParseAddr(o.Name); notAddress == nil && o.Owner == id && (o.IfName == ifName || o.IfName == "") {
			held = append(held, addr)
		}
	}
	return held, err
}

// Leased returns all leases of a network, with those who have them.
func Leased(dir, network string) (all []netsetup.Object, err error) {
	path, err := networkDir(dir, network)
	if err != nil {
		return nil, err
	}
	leases, err := leasesOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, l := range leases {
		content, readErr := os.ReadFile(filepath.Join(path, l.addr.String()))
		if id, name := parseLease(content); readErr == nil && id != "" {
			all = append(all, netsetup.Object{Kind: "lease", Network: network, Name: l.addr.String(), Owner: id, Dir: dir, IfName: name})
		}
	}
	return all, err
}

// Release gives back the leases that Held returns.
func Release(dir, network, id, ifName string) error {
	held, err := Held(dir, network, id, ifName)
	errs := []error{err}
	for _, a := range held {
		errs = append(errs, Undo(netsetup.Object{Kind: "lease", Network: network, Name: a.String(), Owner: id, Dir: dir, IfName: ifName}))
	}
	return errors.Join(errs...)
}

// Available says why p could get no address: its leases can't be written, or a pool
// is empty.
func Available(p netsetup.Plan) error {
	if p.IPAM != "host-local" || len(p.Subnets) == 0 && p.Unasked {
		return nil
	}
	o := netsetup.Object{Kind: "lease", Network: p.Network.Name, Dir: p.DataDir}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	sets, err := rangeSets(p.Subnets)
	if err != nil {
		return err
	}
	s, err := openStore(context.Background(), o, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, set := range sets {
		free := false
		set.candidates(netip.Addr{}, func(a netip.Addr, _ addrRange) (more bool) {
			_, err := os.Lstat(filepath.Join(s.dir, a.String()))
			free = errors.Is(err, fs.ErrNotExist)
			return !free
		})
		if !free {
			return s.empty(set)
		}
	}
	return nil
}

func networkDir(dir, network string) (string, error) {
	if err := netsetup.CheckNetworkName(network); err != nil {
		return "", fmt.Errorf("network %q: %w", network, err)
	}
	if dir == "" {
		dir = DefaultDir
	}
	return filepath.Join(dir, network), nil
}
