package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// ledgerVersion is the version of the file's form.
const ledgerVersion = 1

// A ledger is host.json: what nsinit changed of the host itself, in the order in
// which it did. Sysctls don't outlive a boot, so neither does what it says.
type ledger struct {
	Version int      `json:"version"`
	Boot    string   `json:"boot"`
	Changes []change `json:"changes"`
	Opened  []opened `json:"opened"`
	Guarded []string `json:"guarded,omitempty"` // devices with the loopback's guard

	path string
}

// A change is one sysctl.
type change struct {
	Sysctl sysctl `json:"sysctl"`
	Was    string `json:"was"`
	// Now is what nsinit wrote. If there is something else when it is to be given
	// back, then someone else has written it, and it stays. "" for what another
	// change took along: that is given back in any case.
	Now string `json:"now,omitempty"`
	// Family is 4 or 6 for what belongs to forwarding, 0 for all else.
	Family int `json:"family,omitempty"`
}

// An opened device forwards one family since nsinit switched it on.
type opened struct {
	Device string `json:"device"`
	Family int    `json:"family"` // 4 or 6
	Bridge bool   `json:"bridge,omitempty"`
}

func ledgerPath(dir string) string { return filepath.Join(dir, "host.json") }

// readLedger reads the ledger of dir; the caller holds its lock. One of another
// boot, or none, is an empty one.
func readLedger(dir string) (*ledger, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	fresh := &ledger{Version: ledgerVersion, Boot: boot, path: ledgerPath(dir)}
	data, err := os.ReadFile(fresh.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("host record: %w", err)
	}
	l := &ledger{path: fresh.path}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("host record: %s: %w", fresh.path, err)
	}
	if l.Version != ledgerVersion {
		return nil, fmt.Errorf("host record: %s: version %d, this nsinit knows %d", fresh.path, l.Version, ledgerVersion)
	}
	if l.Boot != boot {
		return fresh, nil
	}
	return l, nil
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("host record: boot id: %w", err)
	}
	return string(bytes.TrimSpace(data)), nil
}

// append notes a change that is about to be made. One that was noted before keeps
// its place and the value from before nsinit.
func (l *ledger) append(c change) {
	if !slices.ContainsFunc(l.Changes, func(old change) bool { return old.Sysctl == c.Sysctl }) {
		l.Changes = append(l.Changes, c)
	}
}

// save replaces the file whole, and returns when it is on the disk.
func (l *ledger) save() error {
	data, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return fmt.Errorf("host record: %w", err)
	}
	if err := replaceFile(l.path, append(data, '\n')); err != nil {
		return fmt.Errorf("host record: %w", err)
	}
	return nil
}

// replaceFile needs no unique name for the new file: the lock is held. An old one
// was left by a process that died.
func replaceFile(path string, data []byte) error {
	next := path + ".new"
	gate.Change()
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	gate.Change()
	return os.Rename(next, path)
}

func (l *ledger) remove() error {
	for _, path := range []string{l.path, l.path + ".new"} {
		gate.Change()
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("host record: %w", err)
		}
	}
	return nil
}

// allIPv6 tells whether IPv6 forwarding was switched on for all devices at once.
func (l *ledger) allIPv6() bool {
	return slices.ContainsFunc(l.Changes, func(c change) bool { return c.Sysctl == forwarding6("all") })
}

// guard notes a device that the loopback's guard is put on.
func (l *ledger) guard(device string) {
	if !slices.Contains(l.Guarded, device) {
		l.Guarded = append(l.Guarded, device)
	}
}

// open notes devices that forward because of us.
func (l *ledger) open(devices ...opened) {
	for _, d := range devices {
		if !slices.Contains(l.Opened, d) {
			l.Opened = append(l.Opened, d)
		}
	}
}

// elements are what the table holds for the opened devices.
func (l *ledger) elements() elements {
	var e elements
	for _, o := range l.Opened {
		if o.Family == 4 {
			e.opened4 = append(e.opened4, nameElement(o.Device))
		} else {
			e.opened6 = append(e.opened6, nameElement(o.Device))
		}
		if o.Bridge {
			e.samePort = append(e.samePort, pairElement(o.Device))
		}
	}
	return e
}

// forget drops what a family's forwarding put here, without giving it back: the
// host forwards by its own will now.
func (l *ledger) forget(family int) {
	l.Changes = slices.DeleteFunc(l.Changes, func(c change) bool { return c.Family == family })
	l.Opened = slices.DeleteFunc(l.Opened, func(o opened) bool { return o.Family == family })
}

// overtaken tells whether the host forwards a family altogether, and not by us,
// although the ledger says that it does because of us.
func (l *ledger) overtaken(family int) bool {
	ours := slices.ContainsFunc(l.Opened, func(o opened) bool { return o.Family == family })
	all := family == 6 && l.allIPv6()
	if !ours && !all || !forwardsAll(family) {
		return false
	}
	if all {
		// The switch is ours. Whoever sets it again sets the default of new devices as
		// well, which nsinit puts back to 0.
		router := func(c change) bool { return c.Sysctl == forwarding6("default") }
		return forwarding6("default").is("1") && !slices.ContainsFunc(l.Changes, router)
	}
	return true
}
