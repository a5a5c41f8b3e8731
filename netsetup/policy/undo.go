package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/nsinit/nsinit/netsetup"
)

// Owns tells whether objects of that kind are this package's.
func Owns(kind string) bool {
	switch kind {
	case KindMasquerade, KindResolver, KindSpoof, KindForward, KindFirewall, KindPort, KindPortmap, KindHairpin:
		return true
	}
	return false
}

// Undo removes one object of a kind that this package records (Owns). One that is gone,
// or was never made, is no error. h may be nil.
func Undo(ctx context.Context, _ *netsetup.Host, o netsetup.Object) error {
	var err error
	switch o.Kind {
	case KindMasquerade:
		err = undoMasquerade(ctx, o.Name)
	case KindResolver:
		err = undoResolver(ctx, o.Name)
	case KindSpoof:
		err = undoSpoof(ctx, o.Name)
	case KindForward:
		err = undoForward(ctx, o)
	case KindFirewall:
		err = undoFirewall(ctx, o)
	case KindPort, KindPortmap, KindHairpin:
		err = undoPublished(ctx, o)
	default:
		return fmt.Errorf("undo: %s: not an object of the firewall", o.Kind)
	}
	if err != nil {
		return fmt.Errorf("undo: %s: %w", o.Kind, err)
	}
	return nil
}

// UndoHost gives back what was changed of the host itself: first the sysctls, the
// last first, then the table, with all that containers still have in it, then the
// record. It is for `gc --all`, and may be run again at any time.
func UndoHost(ctx context.Context, _ *netsetup.Host, opt Options) error {
	if _, err := os.Stat(opt.StateDir); errors.Is(err, fs.ErrNotExist) {
		return undoTable(ctx)
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return err
	}
	defer lock.release()
	l, err := readLedger(opt.StateDir)
	if err != nil {
		return err
	}
	if err := l.undo(); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	// Only now: until here the table kept others out.
	if err := undoTable(ctx); err != nil {
		return err
	}
	ports, err := takeNamed(ctx, opt.StateDir, portsLock)
	if err == nil {
		err = ports.remove()
		ports.release()
	}
	return errors.Join(err, l.remove(), lock.remove())
}

func undoTable(ctx context.Context) error {
	if err := undoSpoofTable(ctx); err != nil {
		return err
	}
	err := commit(ctx, "remove table inet "+tableName, func(tx *transaction) { tx.conn.DelTable(newTable().Table) })
	if gone(err) {
		return nil
	}
	return err
}

// undo writes back what was there before, but leaves alone what someone else has
// changed since, and the forwarding of a host that forwards by its own will now.
func (l *ledger) undo() error {
	for _, family := range []int{4, 6} {
		if l.overtaken(family) {
			l.forget(family)
		}
	}
	var errs []error
	for _, c := range slices.Backward(l.Changes) {
		got, err := c.Sysctl.read()
		if err == nil && (got == c.Now || c.Now == "" && got != c.Was) {
			err = c.Sysctl.write(c.Was)
		}
		if !errors.Is(err, fs.ErrNotExist) { // the device is gone
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, device := range l.Guarded {
		errs = append(errs, removeGuard(device))
	}
	return errors.Join(errs...)
}
