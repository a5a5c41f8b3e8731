package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// lockLimit is how long one start waits for another that changes the host. The
// other needs milliseconds; it may have been stopped by a signal.
const lockLimit = 30 * time.Second

// A lock keeps two processes from changing the host at once. The kernel frees it
// when its holder dies.
type lock struct{ f *os.File }

// takeLock waits for the lock of dir.
func takeLock(ctx context.Context, dir string) (lock, error) { return takeNamed(ctx, dir, "host.lock") }

// portsLock is held while a container chooses its ports. Whoever holds it may take the other.
const portsLock = "ports.lock"

func takeNamed(ctx context.Context, dir, name string) (lock, error) {
	if dir == "" {
		return lock{}, errors.New("state directory: not given, and changes of the host must be recorded")
	}
	path := filepath.Join(dir, name)
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		l, err := tryLock(path)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return lock{}, fmt.Errorf("lock: %s: held by another process: %w", path, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// tryLock returns EWOULDBLOCK when another has the lock, or took the file away
// between our opening and locking it.
func tryLock(path string) (lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return lock{}, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return lock{}, fmt.Errorf("lock: %s: %w", path, err)
	}
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	if err1 != nil || err2 != nil || !os.SameFile(held, there) {
		f.Close()
		return lock{}, fmt.Errorf("lock: %s: %w", path, unix.EWOULDBLOCK)
	}
	return lock{f}, nil
}

func (l lock) release() { l.f.Close() }

// remove takes the file away. Whoever has it open already notices (tryLock).
func (l lock) remove() error {
	gate.Change()
	return os.Remove(l.f.Name())
}
