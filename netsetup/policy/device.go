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
)

// ForgetDevice takes a network's device, which is gone, out of the table and out of
// host.json: what it was set to has gone with it. It may be run again at any time.
func ForgetDevice(ctx context.Context, device string, opt Options) error {
	t := newTable()
	changes := append(t.guard.of(device), remove(t.samePort, pairElement(device)))
	for _, set := range []*nftables.Set{t.devices, t.local, t.routed, t.opened4, t.opened6} {
		changes = append(changes, remove(set, nameElement(device)))
	}
	if err := errors.Join(removeElements(ctx, device, changes), forgetRecorded(ctx, device, opt)); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	return nil
}

func forgetRecorded(ctx context.Context, device string, opt Options) error {
	if _, err := os.Stat(ledgerPath(opt.StateDir)); errors.Is(err, fs.ErrNotExist) {
		return nil
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
	l.Changes = slices.DeleteFunc(l.Changes, func(c change) bool {
		parts := strings.Split(string(c.Sysctl), "/") // ipv4/conf/DEVICE/...
		return len(parts) == 4 && parts[1] == "conf" && parts[2] == device
	})
	l.Opened = slices.DeleteFunc(l.Opened, func(o opened) bool { return o.Device == device })
	l.Guarded = slices.DeleteFunc(l.Guarded, func(name string) bool { return name == device })
	return l.save()
}
