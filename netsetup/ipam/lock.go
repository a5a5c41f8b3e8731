package ipam

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A lock is a file or directory under an exclusive flock(2), the way of
// host-local's lock file.
type lock struct{ f *os.File }

// openLock locks path, which it makes if it isn't there. It waits for the holder
// as long as ctx lasts.
func openLock(ctx context.Context, path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.EISDIR) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, errors.Unwrap(err))
	}
	l := &lock{f}
	switch err := flock(f, unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return l, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return l.wait(ctx, path)
}

// wait blocks until the holder is gone. When ctx ends first, the goroutine gives
// the lock back whenever it comes.
func (l *lock) wait(ctx context.Context, path string) (*lock, error) {
	got := make(chan error, 1)
	go func() {
		got <- flock(l.f, unix.LOCK_EX)
		close(got)
	}()
	select {
	case err := <-got:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), l.f.Close())
		}
		return l, nil
	case <-ctx.Done():
		go l.giveBack(got)
		return nil, fmt.Errorf("lock %s: another process holds it: %w", path, context.Cause(ctx))
	}
}

// giveBack waits for a lock that nobody wants any more. A closed file is unlocked.
func (l *lock) giveBack(got <-chan error) {
	for range got { // one value, then closed
		l.f.Close()
	}
}

// Close unlocks. A child that was started meanwhile has no copy: the descriptor
// is close-on-exec.
func (l *lock) Close() error {
	err := flock(l.f, unix.LOCK_UN)
	return errors.Join(err, l.f.Close())
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
