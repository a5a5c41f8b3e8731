package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// threadDir returns the calling thread's directory in proc, as PID/task/TID in the numbers of that
// procfs. The name thread-self can't be walked: it is a link of the kernel's, and openAttr takes none.
func threadDir(proc *os.File) (string, error) {
	var buf [64]byte
	var n int
	err := withFD(proc, func(fd int) (err error) {
		n, err = unix.Readlinkat(fd, "thread-self", buf[:])
		return err
	})
	if err != nil {
		return "", fmt.Errorf("proc: thread-self: %w", err)
	}
	dir := string(buf[:max(n, 0)])
	pid, tid, ok := strings.Cut(dir, "/task/")
	if !ok || !isNumber(pid) || !isNumber(tid) {
		return "", fmt.Errorf("proc: thread-self: it points to %q, which is no thread", dir)
	}
	return dir, nil
}

func isNumber(s string) bool {
	n, err := strconv.ParseUint(s, 10, 32)
	return err == nil && n > 0
}

// openAttr opens path below proc, which must be a procfs: no link is followed and no mount point
// crossed, so that what is written reaches the kernel and no file that only looks like it.
func openAttr(proc *os.File, path string, flags uint64) (f *os.File, err error) {
	fd := -1
	err = withFD(proc, func(dir int) (err error) {
		var st unix.Statfs_t
		if err := unix.Fstatfs(dir, &st); err != nil {
			return err
		}
		if st.Type != unix.PROC_SUPER_MAGIC {
			return errors.New("not a procfs")
		}
		fd, err = unix.Openat2(dir, path, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "proc/" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// withFD calls do with f's descriptor. Not f.Fd(), which makes the open file description blocking.
func withFD(f *os.File, do func(fd int) error) error {
	if f == nil {
		return errors.New("no procfs given")
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := conn.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}

// writeAttr writes text in one write(2), as the kernel wants it.
func writeAttr(proc *os.File, path, text string) error {
	f, err := openAttr(proc, path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return withFD(f, func(fd int) error {
		n, err := unix.Write(fd, []byte(text))
		if err == nil && n != len(text) {
			err = fmt.Errorf("%d of %d bytes taken", n, len(text))
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: "proc/" + path, Err: err}
		}
		return nil
	})
}

// readAttr returns an attribute without its end: newline, NUL or nothing, as the module likes.
func readAttr(proc *os.File, path string) (string, error) {
	f, err := openAttr(proc, path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var buf [4096]byte
	var n int
	err = withFD(f, func(fd int) (err error) {
		n, err = unix.Read(fd, buf[:])
		return err
	})
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: "proc/" + path, Err: err}
	}
	return trimAttr(buf[:max(n, 0)]), nil
}

func trimAttr(b []byte) string { return strings.TrimRight(string(b), "\n\x00") }
