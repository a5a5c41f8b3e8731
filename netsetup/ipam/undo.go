package ipam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/nsinit/nsinit/netsetup"
)

// undoWait is how long Undo waits for the store's lock. Whoever holds it holds it
// for microseconds, or hangs.
const undoWait = 10 * time.Second

// Undo gives back a "lease". One that is gone, or that another container holds by
// now, is no error and is left alone.
func Undo(o netsetup.Object) error {
	if err := undo(o); err != nil {
		return fmt.Errorf("network %s: %w", o.Network, err)
	}
	return nil
}

func undo(o netsetup.Object) error {
	if o.Kind != "lease" {
		return fmt.Errorf("%s %s: no lease", o.Kind, o.Name)
	}
	// the record names a file to be removed: nothing but an address of a network
	if _, err := netip.ParseAddr(o.Name); err != nil {
		return fmt.Errorf("lease %q: not an address", o.Name)
	}
	if err := netsetup.CheckNetworkName(o.Network); err != nil {
		return fmt.Errorf("lease %s: network %q: %w", o.Name, o.Network, err)
	}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	s := &store{dir: filepath.Join(o.Dir, o.Network), object: o}
	if _, err := os.Lstat(filepath.Join(s.dir, o.Name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoWait)
	defer cancel()
	l, err := openLock(ctx, filepath.Join(s.dir, "lock"))
	if err != nil {
		return err
	}
	return errors.Join(s.release(o.Name), l.Close())
}
