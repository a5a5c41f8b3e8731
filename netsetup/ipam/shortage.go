package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// taken says who has addr, and which address of set is free.
func (s *store) taken(addr netip.Addr, set rangeSet) error {
	err := fmt.Errorf("address %s: taken by %s; end it (nsinit delete), or remove what a killed one left (nsinit gc)", addr, s.owner(addr))
	if r, ok := set.rangeOf(addr); ok {
		if free := s.freeAfter(addr, r); free.IsValid() {
			err = fmt.Errorf("%w; %s is free", err, free)
		}
	}
	return err
}

// freeAfter looks for an address of r that nobody has, in the next few.
func (s *store) freeAfter(addr netip.Addr, r addrRange) netip.Addr {
	const few = 64
	for range few {
		addr = addr.Next()
		if !r.contains(addr) {
			break
		}
		if addr == r.gateway {
			continue
		}
		if _, err := os.Lstat(filepath.Join(s.dir, addr.String())); errors.Is(err, fs.ErrNotExist) {
			return addr
		}
	}
	return netip.Addr{}
}

// empty says how full set is and who has held an address for longest.
func (s *store) empty(set rangeSet) error {
	leases, err := leasesOf(s.dir)
	if err != nil {
		return fmt.Errorf("pool %s: empty", set)
	}
	used, oldest, since := 0, netip.Addr{}, time.Time{}
	for _, l := range leases {
		if _, ok := set.rangeOf(l.addr); !ok {
			continue
		}
		if used++; !oldest.IsValid() || l.since.Before(since) {
			oldest, since = l.addr, l.since
		}
	}
	text := fmt.Sprintf("pool %s: empty: %d of %s addresses are taken", set, used, size(set))
	if oldest.IsValid() {
		text += fmt.Sprintf(", %s for longest, by %s", oldest, s.owner(oldest))
	}
	return fmt.Errorf("%s; nsinit gc frees what killed containers left", text)
}

// size counts the addresses that set can give.
func size(set rangeSet) *big.Int {
	total := new(big.Int)
	for _, r := range set {
		n := new(big.Int).SetBytes(r.end.AsSlice())
		n.Sub(n, new(big.Int).SetBytes(r.start.AsSlice()))
		total.Add(total, n.Add(n, big.NewInt(1)))
		if r.contains(r.gateway) {
			total.Sub(total, big.NewInt(1))
		}
	}
	return total
}

// A lease is one file of the store.
type lease struct {
	addr  netip.Addr
	since time.Time
}

// leasesOf reads the names of the leases in dir; other files aren't counted.
func leasesOf(dir string) ([]lease, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var leases []lease
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		l := lease{addr: addr}
		if info, err := e.Info(); err == nil {
			l.since = info.ModTime()
		}
		leases = append(leases, l)
	}
	return leases, nil
}
