// Package program finds and judges the program that a container executes, with a shell's exit codes: 127 for one
// that isn't there, 126 for one that can't be executed.
package program

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nsinit/nsinit/fs"
	"golang.org/x/sys/unix"
)

// defaultPath is used where the environment has no PATH, as execvp(3) would.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Error is a program that can't be found (Code 127) or executed (126).
type Error struct {
	Code int
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns what the kernel said.
func (e *Error) Unwrap() error { return e.Err }

// ExitStatus is the exit code that stands for how a program ended: its own, or 128 and the number of the signal
// that killed it.
func ExitStatus(status unix.WaitStatus) int {
	if status.Signaled() {
		return ExitSignal + int(status.Signal())
	}
	return status.ExitStatus()
}

// ExitSignal and the number of a signal are the exit code of what the signal ended.
const ExitSignal = 128

// ExecError sorts what execve(2) said of path.
func ExecError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return &Error{127, path, missing(path, err)}
	case errors.Is(err, unix.ENOTDIR):
		return &Error{127, path, err}
	case errors.Is(err, unix.EACCES):
		return &Error{126, path, denied(path, err)}
	case errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR), errors.Is(err, unix.E2BIG),
		errors.Is(err, unix.ELOOP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		return &Error{126, path, err}
	}
	return fmt.Errorf("%s: %w", path, err)
}

// missing tells a missing interpreter from a missing program: execve(2) has one error for both.
func missing(path string, err error) error {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		return fmt.Errorf("%w: its interpreter or loader is not in the container", err)
	}
	return err
}

// denied says where a refusal comes from the mount and not from the file.
func denied(path string, err error) error {
	if fs.Noexec(path) {
		return fmt.Errorf("%w: the file system is mounted noexec", err)
	}
	return err
}

// LookPath finds name in path as the effective user of the calling thread. Unlike exec.LookPath it tells a file that may
// not be executed from one that isn't there.
func LookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if path == "" {
		path = defaultPath
	}
	var refused error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if pe, ok := errors.AsType[*Error](err); ok && pe.Code == 126 && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &Error{127, fmt.Sprintf("%q", name), fmt.Errorf("not found in PATH %s", path)}
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ExecError(path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &Error{126, path, unix.EISDIR}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return ExecError(path, err)
	}
	return nil
}

// Enter makes dir the working directory of the calling thread, as its effective user, and refuses one outside
// the root: a path that leads there is a descriptor that somebody left open (CVE-2024-21626).
func Enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	var buf [unix.PathMax]byte
	if n, err := unix.Getcwd(buf[:]); err != nil || n < 1 || buf[0] != '/' {
		return fmt.Errorf("%s: outside the container's root", dir)
	}
	return nil
}
