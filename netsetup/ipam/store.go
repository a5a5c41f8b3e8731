package ipam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
)

// DefaultDir is where host-local keeps leases unless the network's dataDir says
// otherwise: a folder for each network.
const DefaultDir = "/var/lib/cni/networks"

// A store is a network's leases, locked: host-local's own on-disk store, with
// the same files, but for two things: who takes an address is recorded before;
// and nothing reads all the leases or waits for the disk, so that the thousandth
// costs what the first did.
type store struct {
	*disk.Store
	dir    string // DIR/NETWORK
	lock   *lock
	object netsetup.Object
	record netsetup.Recorder
}

// noRange is the range of an address that no search gave: no search goes on from it.
const noRange = ""

// openStore opens and locks the leases of o.Network below o.Dir. Close unlocks them.
func openStore(ctx context.Context, o netsetup.Object, record netsetup.Recorder) (*store, error) {
	s := &store{dir: filepath.Join(o.Dir, o.Network), object: o, record: record}
	var err error
	if s.Store, err = newDisk(o.Network, o.Dir); err != nil {
		return nil, fmt.Errorf("leases %s: %w", s.dir, err)
	}
	if s.lock, err = openLock(ctx, filepath.Join(s.dir, "lock")); err != nil {
		return nil, err
	}
	return s, nil
}

// newDisk makes host-local's store without its lock file, which it opens without
// close-on-exec: no child may start in between.
func newDisk(network, dir string) (*disk.Store, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	d, err := disk.New(network, dir)
	if err != nil {
		return nil, err
	}
	return d, d.Close()
}

// Close unlocks the store.
func (s *store) Close() error { return s.lock.Close() }

// lastReserved returns the address of the range that was given last, a zero one
// if that can't be told. Then the search begins at the start of the pool.
func (s *store) lastReserved(rangeID string) netip.Addr {
	ip, err := s.LastReservedIP(rangeID)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// reserve takes a if nobody has it, recorded first.
func (s *store) reserve(a netip.Addr, rangeID string) (bool, error) {
	path := filepath.Join(s.dir, a.String())
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	o := s.object
	o.Name = a.String()
	if err := s.record(o); err != nil {
		return false, fmt.Errorf("lease %s: record: %w", o.Name, err)
	}
	err := s.take(path, o, rangeID)
	if errors.Is(err, fs.ErrExist) { // by a tool that doesn't lock
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lease %s: %w", o.Name, errors.Join(err, s.release(o.Name)))
	}
	return true, nil
}

// take does what host-local's own Reserve does, but for one thing: it doesn't
// truncate the file of the last address. ext4 writes a file that was emptied and
// closed to the disk at once (auto_da_alloc): a millisecond, for each family.
func (s *store) take(path string, o netsetup.Object, rangeID string) error {
	gate.Change()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	gate.Change()
	_, err = f.WriteString(o.Owner + disk.LineBreak + o.IfName)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if rangeID == noRange {
		return nil
	}
	return writeInPlace(filepath.Join(s.dir, "last_reserved_ip."+rangeID), o.Name)
}

// writeInPlace makes content the whole of a file that may be there. Cut off in
// between it holds some address or none, and the next search starts there.
func writeInPlace(path, content string) error {
	gate.Change()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	gate.Change()
	_, err = f.WriteString(content)
	if info, statErr := f.Stat(); err == nil && statErr == nil && info.Size() > int64(len(content)) {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, f.Close())
}

// release removes the lease of addr if the container of s holds it.
func (s *store) release(addr string) error {
	path := filepath.Join(s.dir, addr)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lease %s: %w", addr, err)
	}
	if !ours(string(content), s.object) {
		return nil
	}
	gate.Change()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lease %s: %w", addr, err)
	}
	return nil
}

// ours says whether content is a lease of o. One that was cut off while it was
// written is, too: its writer held the lock that we hold now, so it is dead, and
// never gave the address to anybody.
func ours(content string, o netsetup.Object) bool {
	whole := strings.TrimSpace(o.Owner) + disk.LineBreak + o.IfName
	return strings.TrimSpace(content) == whole || strings.HasPrefix(whole, content)
}

// owner says who holds the lease of addr, for errors.
func (s *store) owner(addr netip.Addr) string {
	content, err := os.ReadFile(filepath.Join(s.dir, addr.String()))
	if err != nil {
		return "somebody unknown"
	}
	id, ifname := parseLease(content)
	switch {
	case id == "":
		return "somebody unknown: its lease file is damaged"
	case ifname == "":
		return fmt.Sprintf("container %q", id)
	}
	return fmt.Sprintf("container %q (%s)", id, ifname)
}

// parseLease reads a lease file: the container's id, a line break, the
// interface, which old versions of host-local left out. What is damaged has no id.
func parseLease(content []byte) (id, ifname string) {
	const longest = 512
	if len(content) > longest {
		return "", ""
	}
	id, ifname, _ = strings.Cut(strings.TrimSpace(string(content)), "\n")
	id = strings.TrimSuffix(id, "\r")
	for _, c := range []byte(id + ifname) {
		if c < ' ' || c > '~' {
			return "", ""
		}
	}
	return id, ifname
}
