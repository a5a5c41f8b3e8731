package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"

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

// Undo removes objects of kinds that this package records (Owns), all at once where all
// are there. One that is gone, or was never made, is no error.
func Undo(ctx context.Context, objects ...netsetup.Object) error {
	if len(objects) == 0 {
		return nil
	}
	t := newTable()
	var changes []elementChange
	var errs []error
	for _, o := range objects {
		list, err := t.removals(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("undo: %s %s: %w", o.Kind, o.Name, err))
		}
		changes = append(changes, list...)
	}
	if err := removeElements(ctx, named(objects), changes); err != nil {
		errs = append(errs, fmt.Errorf("undo: %w", err))
	}
	return errors.Join(errs...)
}

// named says in an error what objects were.
func named(objects []netsetup.Object) string {
	const most = 8
	var names []string
	for i, o := range objects {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(objects)-most))
			break
		}
		names = append(names, o.Kind+" "+o.Name)
	}
	return strings.Join(names, ", ")
}

// removals are the elements that are o's alone.
func (t table) removals(o netsetup.Object) ([]elementChange, error) {
	switch o.Kind {
	case KindMasquerade:
		return t.masqueraded(o), nil
	case KindResolver:
		return t.relayedTo(o.Name), nil
	case KindSpoof:
		return newSpoofTable().changes(o.Name, true)
	case KindForward:
		return t.forwarded(o), nil
	case KindFirewall:
		return t.guarded(o), nil
	case KindPort, KindPortmap, KindHairpin:
		return t.published(o), nil
	}
	return nil, errors.New("not an object of the firewall")
}

// remove is the removal of elements of a set.
func remove(set *nftables.Set, elements ...nftables.SetElement) elementChange {
	return elementChange{set: set, remove: true, elements: elements}
}

// removeElements removes elements in one transaction. What is gone, or whose whole table is,
// is no error. names says in an error what they were.
func removeElements(ctx context.Context, names string, changes []elementChange) error {
	changes = distinct(changes)
	for try := 1; len(changes) > 0; try++ {
		err := changeElements(ctx, "remove "+names, changes...)
		if !gone(err) && !unsupported(err) || try == clashTries {
			return err
		}
		if changes, err = present(changes); err != nil {
			return fmt.Errorf("remove %s: %w", names, err)
		}
	}
	return nil
}

// distinct are the changes, one for each set and without repetitions: to remove an element
// twice would be an error of the whole transaction.
func distinct(changes []elementChange) (list []elementChange) {
	seen := make(map[string]bool)
	for _, c := range changes {
		at := slices.IndexFunc(list, c.sameSet)
		if at < 0 {
			at, list = len(list), append(list, remove(c.set))
		}
		for _, e := range c.elements {
			id := fmt.Sprint(at, " ", string(e.Key), string(e.KeyEnd))
			if !seen[id] {
				seen[id], list[at].elements = true, append(list[at].elements, e)
			}
		}
	}
	return list
}

func (c elementChange) sameSet(other elementChange) bool {
	return c.set.Name == other.set.Name && c.set.Table.Family == other.set.Table.Family
}

// present leaves of the changes the elements that are there.
func present(changes []elementChange) (list []elementChange, err error) {
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", explain(err))
	}
	for _, c := range changes {
		keys, err := keysOf(conn, c.set)
		if err != nil {
			return nil, err
		}
		c.elements = slices.DeleteFunc(slices.Clone(c.elements), func(e nftables.SetElement) bool { return !keys[string(e.Key)+string(e.KeyEnd)] })
		if len(c.elements) > 0 {
			list = append(list, c)
		}
	}
	return list, nil
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
