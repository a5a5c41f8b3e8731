package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
	"golang.org/x/sys/unix"
)

// Removed is one thing that GC removed.
type Removed struct {
	Container string `json:"container,omitempty"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Error     string `json:"error,omitempty"` // it could not be removed
}

// GC removes what killed runs left. all removes also what outlives containers: the default networks and their bridges,
// the firewall table, forwarding that was switched on; never anything of a running container.
func (r *Runtime) GC(ctx context.Context, all bool) ([]Removed, error) {
	if err := r.ensureRoot(); err != nil {
		return nil, err
	}
	dead, alive, removed, err := r.collect()
	if err != nil {
		return nil, err
	}
	for _, rec := range dead {
		removed = append(removed, r.removeDead(ctx, rec)...)
	}
	removed = append(removed, r.removeUnfinished(ctx)...)
	removed = append(removed, r.removeStaleLeases()...)
	removed = append(removed, r.removeAttachments(ctx)...)
	if attached, err := r.attachments().Objects(); err != nil || len(attached) > 0 {
		alive++
	}
	if !all {
		return removed, nil
	}
	if alive > 0 {
		return removed, errAlive
	}
	// Nobody may begin to use what is removed.
	claims, err := r.claimLock(unix.LOCK_EX)
	if err != nil {
		return removed, err
	}
	defer claims.Unlock()
	if left, err := os.ReadDir(r.containers()); err != nil || len(left) > 0 {
		return removed, errors.Join(err, errAlive)
	}
	return append(removed, r.removeHostObjects(ctx)...), nil
}

// removeAttachments ends what other runtimes left that had nsinit as their CNI plugin.
func (r *Runtime) removeAttachments(ctx context.Context) (removed []Removed) {
	ended, err := r.attachments().Collect(ctx)
	for _, name := range ended {
		removed = append(removed, Removed{Kind: "attachment", Name: name})
	}
	if err != nil {
		removed = append(removed, Removed{Kind: "attachment", Name: "of other runtimes", Error: oneLine(err)})
	}
	return removed
}

var errAlive = errors.New("--all: there are containers; end them and delete them first")

// collect finds the containers that nobody owns and that don't run on their own, and takes
// their locks. While it looks no container is claimed.
func (r *Runtime) collect() (dead []*record, alive int, broken []Removed, err error) {
	claims, err := r.claimLock(unix.LOCK_EX)
	if err != nil {
		return nil, 0, nil, err
	}
	defer claims.Unlock()
	entries, err := os.ReadDir(r.containers())
	if err != nil {
		return nil, 0, nil, err
	}
	for _, e := range entries {
		rec := &record{dir: filepath.Join(r.containers(), e.Name())}
		switch rec.lock, err = rec.adopt(); {
		case errors.Is(err, os.ErrNotExist): // its owner removed it meanwhile
			continue
		case err != nil:
			alive++ // owned: a foreground run, a start or a delete under way
			if rec.load() == nil {
				broken = append(broken, rec.removePause()...)
			}
			continue
		}
		runs, err := rec.runsAlone()
		switch {
		case err != nil:
			broken = append(broken, Removed{Container: rec.id(), Kind: "record", Name: rec.dir, Error: err.Error()})
			rec.lock.Unlock()
		case runs:
			alive++
			broken = append(broken, rec.removePause()...)
			rec.lock.Unlock()
		default:
			dead = append(dead, rec)
		}
	}
	return dead, alive, broken, nil
}

// removePause lets a container run again that a killed exec has left stopped, whoever owns it.
func (c *record) removePause() []Removed {
	left, err := c.thaw()
	if err == nil && !left {
		return nil
	}
	item := Removed{Container: c.id(), Kind: "pause", Name: c.state.Cgroup}
	if err != nil {
		item.Error = oneLine(err)
	}
	return []Removed{item}
}

// adopt takes the lock of a record that nobody holds; os.ErrNotExist if the record is gone. A start that was killed between
// making the directory and its lock has left it without one. The caller holds the claims lock.
func (c *record) adopt() (*lock, error) {
	l, err := probeLock(c.path("lock"))
	if errors.Is(err, os.ErrNotExist) {
		l, err = lockFile(c.path("lock"), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, err
	}
	if !l.at(c.path("lock")) {
		l.Unlock()
		return nil, os.ErrNotExist
	}
	return l, nil
}

// runsAlone tells whether this is a detached container that runs. A foreground one whose parent is gone, or one
// that was never released to the end, is a leftover.
func (c *record) runsAlone() (bool, error) {
	if err := c.load(); err != nil {
		return false, err
	}
	pidfd, err := c.alive()
	if err != nil || pidfd == nil {
		return false, err
	}
	return c.state.Detached && c.state.Status == StatusRunning, pidfd.Close()
}

func (r *Runtime) removeDead(ctx context.Context, rec *record) (removed []Removed) {
	list, _ := objects(rec.path("objects"))
	for _, o := range list {
		removed = append(removed, Removed{Container: rec.id(), Kind: o.Kind, Name: o.Name})
	}
	own := Removed{Container: rec.id(), Kind: "container", Name: rec.id()}
	if err := r.dispose(ctx, rec); err != nil {
		own.Error = oneLine(err)
		return []Removed{own}
	}
	return append(removed, own)
}

// removeUnfinished undoes what attaches to running containers have left that were killed.
func (r *Runtime) removeUnfinished(ctx context.Context) (removed []Removed) {
	dirs, err := os.ReadDir(r.containers())
	if err != nil {
		return []Removed{{Kind: "container", Name: r.containers(), Error: oneLine(err)}}
	}
	for _, d := range dirs {
		rec := &record{dir: filepath.Join(r.containers(), d.Name())}
		list, err := entries(rec.path("objects"))
		if err = errors.Join(err, rec.load()); err != nil || len(rec.state.unfinished(list)) == 0 {
			continue // an error is told by whoever collects the container
		}
		c, err := r.connect(d.Name())
		if err != nil {
			continue // it is being started, or has ended
		}
		// Looked at again, under its lock: an attach may have been under way.
		found, err := c.undoUnfinished(ctx)
		for _, a := range found {
			removed = append(removed, Removed{Container: d.Name(), Kind: netsetup.KindInterface, Name: a.IfName})
		}
		if err = errors.Join(err, c.close()); err != nil {
			removed = append(removed, Removed{Container: d.Name(), Kind: netsetup.KindInterface, Error: oneLine(err)})
		}
	}
	return removed
}

// removeStaleLeases gives back what containers of an earlier boot held, whose records went with it.
func (r *Runtime) removeStaleLeases() (removed []Removed) {
	boot, err := ipam.BootTime()
	if err != nil {
		return []Removed{{Kind: "lease", Error: oneLine(err)}}
	}
	stale, err := ipam.Stale(boot, func(id string) bool {
		_, err := os.Stat(filepath.Join(r.containers(), id))
		return err == nil
	})
	if err != nil {
		removed = append(removed, Removed{Kind: "lease", Error: oneLine(err)})
	}
	for _, o := range stale {
		item := Removed{Container: o.Owner, Kind: o.Kind, Name: o.Name}
		if err := ipam.Undo(o); err != nil {
			item.Error = oneLine(err)
		}
		removed = append(removed, item)
	}
	return removed
}

// removeHostObjects removes what belongs to networks and not to a container.
func (r *Runtime) removeHostObjects(ctx context.Context) (removed []Removed) {
	net, err := netsetup.OpenHost(r.warn)
	if err != nil {
		return []Removed{{Kind: "network", Error: oneLine(err)}}
	}
	defer net.Close()
	list, err := objects(r.hostObjects())
	for i := len(list) - 1; i >= 0 && err == nil; i-- {
		item := Removed{Kind: list[i].Kind, Name: list[i].Name}
		if err := chain.Undo(ctx, net, list[i]); err != nil {
			item.Error = oneLine(err)
		}
		removed = append(removed, item)
	}
	names, forgetErr := ipam.Forget(ctx, r.dataDir())
	for _, name := range names {
		removed = append(removed, Removed{Kind: "network", Name: name})
	}
	err = errors.Join(err, forgetErr, policy.UndoHost(ctx, net, policy.Options{StateDir: r.dataDir()}))
	if err == nil {
		err = os.RemoveAll(r.hostObjects())
	}
	if err != nil {
		removed = append(removed, Removed{Kind: "network", Name: r.hostObjects(), Error: oneLine(err)})
	}
	return removed
}
