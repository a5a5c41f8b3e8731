package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"

	"github.com/nsinit/nsinit/netsetup"
)

// Reload makes the table again, with all that the records say (opt.Recorded), for after
// somebody flushed the host's ruleset. What is there stays: a container that starts
// meanwhile loses nothing, and one that ends leaves nothing. Where there are no records, and
// nothing of the host was changed, nothing is made.
func Reload(ctx context.Context, _ *netsetup.Host, opt Options) error {
	if _, err := os.Stat(opt.StateDir); errors.Is(err, os.ErrNotExist) {
		return nil // nobody ever had a network here
	}
	lock, err := takeLock(ctx, opt.StateDir)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	defer lock.release()
	ledger, err := readLedger(opt.StateDir)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	var e elements
	objects, err := recorded(opt)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	e.takeAll(objects)
	if err := restoreSpoof(ctx, objects); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	t := newTable()
	if err := e.leadOnce(t); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if len(e.changes(t)) > 0 || len(ledger.Changes) > 0 || len(ledger.Opened) > 0 {
		if err := makeTable(ctx, t, ledger, e); err != nil {
			return fmt.Errorf("reload: %w", err)
		}
	}
	if err := dropEnded(ctx, objects, opt); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

// recorded are the objects of this package's kinds in the records of all containers.
func recorded(opt Options) ([]netsetup.Object, error) {
	if opt.Recorded == nil {
		return nil, nil
	}
	objects, err := opt.Recorded()
	if err != nil {
		return nil, fmt.Errorf("records of other containers: %w", err)
	}
	return slices.DeleteFunc(objects, func(o netsetup.Object) bool { return !Owns(o.Kind) }), nil
}

// dropEnded takes out again what was put in for containers that ended between the reading
// of their records and now. Whoever ends a container takes its objects from opt.Recorded
// first, and out of the table then.
func dropEnded(ctx context.Context, put []netsetup.Object, opt Options) error {
	if len(put) == 0 {
		return nil
	}
	now, err := recorded(opt)
	if err != nil {
		return err
	}
	still := make(map[netsetup.Object]bool, len(now))
	for _, o := range now {
		still[o] = true
	}
	return Undo(ctx, slices.DeleteFunc(slices.Clone(put), func(o netsetup.Object) bool { return still[o] })...)
}

// leadOnce leaves each port to what it leads to in the table, or else to the first of e: a container on several networks
// has its ports published on each, and a second element of one key fails the whole transaction. So does a subnet that
// overlaps one in the table, which stays.
func (e *elements) leadOnce(t table) error {
	conn, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", explain(err))
	}
	for set, list := range map[*nftables.Set]*[]nftables.SetElement{
		t.publish.ports4: &e.ports4, t.publish.ports6: &e.ports6, t.publish.ranges4: &e.ranges4, t.publish.ranges6: &e.ranges6,
	} {
		if len(*list) == 0 {
			continue
		}
		led, err := keysOf(conn, set)
		if err != nil {
			return err
		}
		*list = slices.DeleteFunc(*list, func(el nftables.SetElement) bool {
			key := string(el.Key) + string(el.KeyEnd)
			was := led[key]
			led[key] = true
			return was
		})
	}
	for set, list := range map[*nftables.Set]*[]nftables.SetElement{t.networks4: &e.networks4, t.networks6: &e.networks6} {
		if len(*list) == 0 {
			continue
		}
		there, _, err := elementsOf(conn, set)
		if err != nil {
			return err
		}
		*list = slices.DeleteFunc(*list, func(el nftables.SetElement) bool {
			return slices.ContainsFunc(there, func(t nftables.SetElement) bool { return overlap(el, t) })
		})
	}
	return nil
}
