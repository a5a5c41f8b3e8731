package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// List returns all containers, by name. One whose record can't be read is listed with that as its status.
func (r *Runtime) List() ([]State, error) {
	entries, err := os.ReadDir(r.containers())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	states := []State{}
	for _, e := range entries {
		s, err := r.State(e.Name())
		switch {
		case errors.Is(err, os.ErrNotExist): // ended meanwhile
		case err != nil:
			states = append(states, State{ID: e.Name(), Status: "unreadable"})
		default:
			states = append(states, *s)
		}
	}
	return states, nil
}

// State returns container id; os.ErrNotExist if there is none.
func (r *Runtime) State(id string) (*State, error) {
	rec, err := r.open(id)
	if err != nil {
		return nil, err
	}
	return rec.current()
}

// current is what the record says, put right by whether the init lives.
func (c *record) current() (*State, error) {
	s := c.state.State
	pidfd, err := c.alive()
	switch {
	case err != nil:
		return nil, err
	case pidfd != nil:
		return &s, pidfd.Close()
	case s.Pid != 0 || !c.locked():
		s.Status, s.Pid = StatusStopped, 0
	}
	return &s, nil
}

// locked tells whether somebody owns the record: a start under way, a foreground run, a delete.
func (c *record) locked() bool {
	l, err := probeLock(c.path("lock"))
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	l.Unlock()
	return false
}

// status is for messages.
func (r *Runtime) status(id string) string {
	s, err := r.State(id)
	if err != nil {
		return "unknown"
	}
	return s.Status
}

// Kill sends sig to the container's program; all to each of its processes.
func (r *Runtime) Kill(id string, sig os.Signal, all bool) error {
	rec, err := r.open(id)
	if err != nil {
		return err
	}
	pidfd, err := rec.alive()
	if err != nil {
		return err
	}
	if pidfd == nil {
		return fmt.Errorf("%q: is not running", id)
	}
	defer pidfd.Close()
	number := sig.(syscall.Signal)
	if all && rec.state.Cgroup != "" {
		return killAll(rec.state.Cgroup, number)
	}
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), number, nil, 0); err != nil {
		return fmt.Errorf("%q: signal %d: %w", id, number, err)
	}
	return nil
}

func killAll(cgroup string, sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		return killCgroup(cgroup)
	}
	pids, err := cgroupPids(cgroup)
	for _, pid := range pids {
		fd, openErr := unix.PidfdOpen(pid, 0)
		if openErr != nil {
			continue // ended meanwhile
		}
		// The number may have been given to another process since it was read: only a member is signalled.
		if now, _ := cgroupPids(cgroup); slices.Contains(now, pid) {
			if sendErr := unix.PidfdSendSignal(fd, sig, nil, 0); sendErr != nil && !errors.Is(sendErr, unix.ESRCH) {
				err = errors.Join(err, sendErr)
			}
		}
		_ = unix.Close(fd)
	}
	return err
}

const ownerPatience = 15 * time.Second

// Delete removes a stopped container and what it holds; force kills it first, and then one that is
// gone already is no error.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	rec, err := r.open(id)
	if errors.Is(err, os.ErrNotExist) && force {
		return nil
	}
	if err != nil {
		return err
	}
	if !force {
		s, err := rec.current()
		if err != nil {
			return err
		}
		if s.Status != StatusStopped {
			return fmt.Errorf("%q: is %s; end it with nsinit kill %s, or use --force", id, s.Status, id)
		}
	} else if err := rec.killInit(); err != nil {
		return err
	}
	gone, err := rec.own(ctx, ownerPatience)
	if err != nil || gone {
		return err
	}
	if err := rec.load(); err != nil {
		return err
	}
	return r.dispose(ctx, rec)
}

// killInit ends the container's init, and with it every process of its pid namespace, and waits for that.
func (c *record) killInit() error {
	pidfd, err := c.alive()
	if err != nil || pidfd == nil {
		return err
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", c.state.Pid, err)
	}
	if !readable(pidfd, killPatience) {
		return fmt.Errorf("process %d does not end after SIGKILL", c.state.Pid)
	}
	return nil
}

// own takes the lock, waiting for its owner to be done, and tells whether that one removed the container.
func (c *record) own(ctx context.Context, patience time.Duration) (gone bool, err error) {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		c.lock, err = probeLock(c.path("lock"))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return true, nil
		case err == nil && !c.lock.at(c.path("lock")):
			c.lock.Unlock()
			return true, nil
		case err == nil:
			return false, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return false, err
		case time.Now().After(deadline):
			return false, fmt.Errorf("%q: is in another nsinit's hands: %w", c.id(), err)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// dispose ends a container and removes all of it: processes, what it has on the host, cgroup, record. The caller
// holds the lock. It can be killed at any point and done again.
func (r *Runtime) dispose(ctx context.Context, rec *record) error {
	err := rec.killInit()
	list, listErr := objects(rec.path("objects"))
	for _, o := range list {
		if o.Kind == kindCgroup && filepath.Base(o.Name) == rec.id() {
			err = errors.Join(err, killCgroup(o.Name), removeCgroup(o.Name))
		}
	}
	if err = errors.Join(err, listErr, r.undoObjects(ctx, rec, nil)); err != nil {
		rec.lock.Unlock()
		return err // the record stays, so that it can be tried again
	}
	return rec.remove()
}
