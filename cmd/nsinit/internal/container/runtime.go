package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Where things lie unless the caller says otherwise. The root is gone after a reboot, as
// are the containers; what it says of the host's network is only true for this boot too.
const (
	DefaultRoot    = "/run/nsinit"
	DefaultDataDir = "/var/lib/nsinit"
)

// A Runtime is where containers are recorded, and how it talks.
type Runtime struct {
	Root    string    // state directory; "" = DefaultRoot
	DataDir string    // what outlives a boot: networks; "" = DefaultDataDir
	Trace   io.Writer // each step with its time; nil = silent
	Stderr  io.Writer // one-line warnings; nil = os.Stderr
}

func (r *Runtime) root() string {
	if r.Root == "" {
		return DefaultRoot
	}
	return r.Root
}

func (r *Runtime) dataDir() string {
	if r.DataDir == "" {
		return DefaultDataDir
	}
	return r.DataDir
}

func (r *Runtime) warn(line string) {
	w := r.Stderr
	if w == nil {
		w = os.Stderr
	}
	fmt.Fprintf(w, "nsinit: %s\n", line)
}

// tracer writes the steps of one side, or is nil.
func (r *Runtime) tracer(side string) func(string, time.Duration) {
	if r.Trace == nil {
		return nil
	}
	return func(name string, took time.Duration) {
		fmt.Fprintf(r.Trace, "trace: %s %s %.3fms\n", side, name, float64(took.Microseconds())/1000)
	}
}

// containers is the directory with one directory a container.
func (r *Runtime) containers() string { return filepath.Join(r.root(), "containers") }

// emptyDir is a directory that stays empty: the second layer of the overlay that nsinit is executed from.
func (r *Runtime) emptyDir() string { return filepath.Join(r.root(), "empty") }

// hostObjects is the journal of what belongs to networks and outlives containers.
func (r *Runtime) hostObjects() string { return filepath.Join(r.root(), "network-objects") }

// ensureRoot makes the state directory, and refuses one that somebody else could write to: what is
// recorded there is undone with root's rights.
func (r *Runtime) ensureRoot() error {
	if err := os.MkdirAll(r.containers(), 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Mkdir(r.emptyDir(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, dir := range []string{r.root(), r.containers()} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("state directory %s: %w", dir, err)
		}
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return fmt.Errorf("state directory %s: is no directory; remove it or use --root", dir)
		case st.Uid != uint32(os.Geteuid()):
			return fmt.Errorf("state directory %s: belongs to uid %d; chown it or use --root", dir, st.Uid)
		case st.Mode&0o022 != 0:
			return fmt.Errorf("state directory %s: others can write to it; chmod 700 it or use --root", dir)
		}
	}
	return nil
}

// A lock is an flock(2) on a file. It goes with its holder, killed or not.
type lock struct{ f *os.File }

// lockFile opens path, made if it is missing, and locks it: how is LOCK_SH or LOCK_EX, with LOCK_NB the error is
// EWOULDBLOCK when another holds it.
func lockFile(path string, how int) (*lock, error) {
	return flock(path, os.O_RDWR|os.O_CREATE, how)
}

// probeLock locks path if it is there and nobody holds it. It makes nothing: its owner may be removing the directory.
func probeLock(path string) (*lock, error) {
	return flock(path, os.O_RDWR, unix.LOCK_EX|unix.LOCK_NB)
}

func flock(path string, flags, how int) (*lock, error) {
	return openLock(path, flags, func(fd uintptr) error { return unix.Flock(int(fd), how) })
}

func openLock(path string, flags int, take func(fd uintptr) error) (*lock, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = take(f.Fd())
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &lock{f}, nil
}

// at tells whether l is still the lock at path: its owner may have removed the file between our open and our lock.
func (l *lock) at(path string) bool {
	var held, there unix.Stat_t
	return unix.Fstat(int(l.f.Fd()), &held) == nil && unix.Lstat(path, &there) == nil && held.Ino == there.Ino && held.Dev == there.Dev
}

// Unlock gives the lock back. A second call does nothing.
func (l *lock) Unlock() {
	if l != nil && l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

// claimLock guards the moment between making a container's directory and locking it: claims share it, gc
// takes it alone.
func (r *Runtime) claimLock(how int) (*lock, error) {
	return lockFile(filepath.Join(r.root(), "lock"), how)
}
