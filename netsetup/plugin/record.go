package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
	"github.com/nsinit/nsinit/netsetup/policy"
	"golang.org/x/sys/unix"
)

// A record is what one plugin of one attachment has on the host. It is a folder,
// ROOT/cni/NETWORK/ID@IFNAME/TYPE, with a journal of objects and, when ADD is done,
// the attachment.
type record struct {
	dir     string
	network string // the journal of what belongs to networks
	lock    *os.File
}

// An attached is what CHECK and DEL need to know of a finished ADD.
type attached struct {
	Attachment netsetup.Attachment `json:"attachment"`
	NetNS      string              `json:"netns"` // the path that was given
	Inode      uint64              `json:"inode"` // of the namespace behind it
}

func (p *Plugin) dir() string { return filepath.Join(p.Root, "cni") }

// open locks the record of c, which is made if it isn't there.
func (p *Plugin) open(c *call) (*record, error) {
	return p.openRecord(p.recordDir(c))
}

func (p *Plugin) recordDir(c *call) string {
	return filepath.Join(p.dir(), c.conf.Name, c.id+"@"+c.ifName, c.conf.Type)
}

// find locks the record of c if there is one, else it returns nil.
func (p *Plugin) find(c *call) (*record, error) {
	dir := p.recordDir(c)
	_, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return p.openRecord(dir)
}

// folderTries is how often a record's folder is made again that others remove meanwhile.
const folderTries = 1000

func (p *Plugin) openRecord(dir string) (*record, error) {
	for try := 1; ; try++ {
		gate.Change()
		err := os.MkdirAll(dir, 0o700)
		if try < folderTries && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
			continue // the end of another record has just removed a parent, or this folder
		}
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		gate.Change()
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its last holder has just removed it
		}
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		if err := flock(lock); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("record %s: lock: %w", dir, err)
		}
		r := &record{dir, filepath.Join(p.Root, "network-objects"), lock}
		if r.current() {
			return r, nil
		}
		r.close()
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// current tells whether the lock is still the one that others find.
func (r *record) current() bool {
	var held, there unix.Stat_t
	path := filepath.Join(r.dir, "lock")
	return unix.Fstat(int(r.lock.Fd()), &held) == nil && unix.Lstat(path, &there) == nil && held.Ino == there.Ino
}

func (r *record) close() { _ = r.lock.Close() }

// journal writes o down before it is made. A line that is torn, by a kill or a full
// file system, is of an object that never was; the next one begins with the line's end,
// and so is whole.
func (r *record) journal(o netsetup.Object) error {
	path := filepath.Join(r.dir, "objects")
	if o.Owner == "" { // a network's: it outlives its attachments
		path = r.network
		if known, err := objectsIn(path); err != nil || slices.Contains(known, o) {
			return err
		}
	}
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	gate.Change()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("record %s %s: %w", o.Kind, o.Name, err)
	}
	_, err = f.Write(append([]byte{'\n'}, line...))
	return errors.Join(err, f.Close())
}

func (r *record) objects() ([]netsetup.Object, error) {
	return objectsIn(filepath.Join(r.dir, "objects"))
}

// publishes tells whether it holds ports of the host.
func (r *record) publishes() (bool, error) {
	list, err := r.objects()
	return slices.ContainsFunc(list, func(o netsetup.Object) bool { return o.Kind == policy.KindPort }), err
}

func objectsIn(path string) ([]netsetup.Object, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []netsetup.Object
	for line := range bytes.Lines(data) {
		var o netsetup.Object
		if json.Unmarshal(line, &o) == nil && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list, err
}

// save says that ADD is done.
func (r *record) save(a attached) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	tmp := filepath.Join(r.dir, "attached.new")
	gate.Change()
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	gate.Change()
	return os.Rename(tmp, filepath.Join(r.dir, "attached"))
}

// load returns what save wrote; ok is false if ADD was never done.
func (r *record) load() (a attached, ok bool, err error) {
	data, err := os.ReadFile(filepath.Join(r.dir, "attached"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err != nil {
		return a, false, fmt.Errorf("record %s: %w", r.dir, err)
	}
	return a, true, nil
}

// remove ends the record. The lock goes last: who finds none begins a new record, of
// which nothing may be taken away.
func (r *record) remove() error {
	defer r.close()
	for _, name := range []string{"attached", "attached.new", "objects", "lock"} {
		gate.Change()
		err := os.Remove(filepath.Join(r.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record: %w", err)
		}
	}
	return nil
}

// prune removes the folder of a record that has ended, and the parents that are empty
// without it. Whoever makes a record there at the same time makes them again.
func (p *Plugin) prune(dir string) {
	for ; dir == p.dir() || strings.HasPrefix(dir, p.dir()+"/"); dir = filepath.Dir(dir) {
		gate.Change()
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // another record lies in it
		}
	}
}

// pruneAll removes what ends of records that were killed have left of their folders, of
// one network or ("") of all.
func (p *Plugin) pruneAll(network string) {
	for _, dir := range p.networks(network) {
		for _, attachment := range foldersIn(dir) {
			if strings.Contains(filepath.Base(attachment), "@") {
				p.prune(attachment)
			}
		}
		p.prune(dir)
	}
	p.prune(p.dir())
}

func (p *Plugin) networks(network string) []string {
	if network != "" {
		return []string{filepath.Join(p.dir(), network)}
	}
	return foldersIn(p.dir())
}

// foldersIn lists the folders in dir, none if it isn't there.
func foldersIn(dir string) (paths []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// A place is one plugin's record of one attachment.
type place struct{ dir, id, ifName, plugin string }

// places lists the records below the state directory, of one network or ("") of all.
// What else lies there is nobody's business.
func (p *Plugin) places(network string) (list []place) {
	for _, dir := range p.networks(network) {
		for _, attachment := range foldersIn(dir) {
			id, ifName, ok := strings.Cut(filepath.Base(attachment), "@")
			if !ok {
				continue
			}
			for _, record := range foldersIn(attachment) {
				list = append(list, place{record, id, ifName, filepath.Base(record)})
			}
		}
	}
	return list
}

// Objects returns what the records of all attachments hold.
func (p *Plugin) Objects() (all []netsetup.Object, err error) {
	for _, at := range p.places("") {
		found, readErr := objectsIn(filepath.Join(at.dir, "objects"))
		all, err = append(all, found...), errors.Join(err, readErr)
	}
	return all, err
}
