package creds

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// CloseOnExec marks every descriptor of the process from 3 on close-on-exec, but those of keep, which are
// unmarked and survive the exec under their numbers. They stay the caller's.
//
// Nothing is closed: the Go runtime has descriptors of its own (epoll, the cgroup's CPU quota) that
// it uses until the exec, and the pipe that reports errors must live as long.
func CloseOnExec(keep ...*os.File) error {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("descriptors: close_range: %w (it takes Linux 5.11)", err)
	}
	for _, f := range keep {
		if f == nil {
			return errors.New("descriptors: keep: a file that is nil")
		}
		if err := keepOnExec(f); err != nil {
			return fmt.Errorf("descriptors: keep %s: %w", f.Name(), err)
		}
	}
	return nil
}

func keepOnExec(f *os.File) error {
	// Not f.Fd(), which makes the open file description blocking.
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { _, err = unix.FcntlInt(fd, unix.F_SETFD, 0) }); e != nil {
		return e
	}
	return err
}
