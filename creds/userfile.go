package creds

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Limits on the container's files. 32 MiB is half a million users, read in a tenth of a second.
const (
	maxUserFile = 32 << 20
	maxUserLine = 1 << 20
)

// An unusableError says that a file is missing or can't be read as what it should be. For a user
// given by number that is the same as a file without lines.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return e.err.Error() }
func (e *unusableError) Unwrap() error { return e.err }

func isUnusable(err error) bool {
	var u *unusableError
	return errors.As(err, &u)
}

func isMissing(err error) bool { return isUnusable(err) && errors.Is(err, unix.ENOENT) }

// eachLine calls do with each line of the file at path below root, until do returns false. The
// line is only good during the call.
func eachLine(root *os.File, path string, do func(line []byte) bool) error {
	fd, err := openUserFile(root, path)
	if err != nil {
		return &unusableError{fmt.Errorf("%s of the container: %w", path, err)}
	}
	defer unix.Close(fd)
	if err := scanLines(fdReader(fd), do); err != nil {
		return fmt.Errorf("%s of the container: %w", path, err)
	}
	return nil
}

func scanLines(r io.Reader, do func(line []byte) bool) error {
	limited := &io.LimitedReader{R: r, N: maxUserFile + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 16<<10), maxUserLine)
	for n := 1; lines.Scan(); n++ {
		if limited.N == 0 {
			break
		}
		if !do(lines.Bytes()) {
			return nil
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return errorString("has a line longer than 1 MiB")
	case err != nil:
		return err
	case limited.N == 0:
		return errorString("is larger than 32 MiB")
	}
	return nil
}

// openUserFile opens path below root for reading, if it is a regular file on a file system that
// holds files. It is looked at before it is opened, since the open alone of a device can act, and again
// after it.
func openUserFile(root *os.File, path string) (int, error) {
	probe, err := openBelow(root, path, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(probe)
	seen, err := checkUserFile(probe)
	if err != nil {
		return -1, err
	}
	// O_NONBLOCK: if it has become a FIFO meanwhile, don't wait for a writer.
	fd, err := openBelow(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return -1, err
	}
	now, err := checkUserFile(fd)
	if err == nil && (now.Dev != seen.Dev || now.Ino != seen.Ino) {
		err = errorString("was exchanged while it was opened")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openBelow resolves path inside root: absolute links and .. end there. Mount points may be
// crossed (a passwd file is often bound in as a volume), magic links not.
func openBelow(root *os.File, path string, flags uint64) (fd int, err error) {
	conn, err := root.SyscallConn()
	if err != nil {
		return -1, err
	}
	how := &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd = -1
	if e := conn.Control(func(dir uintptr) {
		// EAGAIN: something was renamed or mounted on the host while .. was walked (openat2(2)).
		for range 128 {
			fd, err = unix.Openat2(int(dir), path, how)
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}); e != nil {
		return -1, e
	}
	return fd, err
}

func checkUserFile(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return st, errorString("is not a regular file")
	}
	if st.Size > maxUserFile {
		return st, errorString("is larger than 32 MiB")
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return st, err
	}
	if isKernelFS(fs.Type) {
		return st, errorString("lies on a file system of the kernel's, not on one that holds files")
	}
	return st, nil
}

// isKernelFS: files there count as regular, but reading them can block for ever (/proc/kmsg), act,
// or show what is the host's.
func isKernelFS(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.AAFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.RDTGROUP_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.NSFS_MAGIC, unix.PID_FS_MAGIC, unix.BINFMTFS_MAGIC, unix.AUTOFS_SUPER_MAGIC, unix.BINDERFS_SUPER_MAGIC,
		unix.USBDEVICE_SUPER_MAGIC, unix.OPENPROM_SUPER_MAGIC,
		configfsMagic, fusectlMagic, mqueueMagic, nfsdMagic, rpcPipefsMagic, xenfsMagic, gadgetfsMagic, functionfsMagic:
		return true
	}
	return false
}

// Magic numbers that x/sys/unix lacks, from the kernel's sources.
const (
	configfsMagic   = 0x62656570 // fs/configfs/mount.c
	fusectlMagic    = 0x65735543 // fs/fuse/control.c
	mqueueMagic     = 0x19800202 // ipc/mqueue.c
	nfsdMagic       = 0x6e667364 // fs/nfsd/nfsctl.c
	rpcPipefsMagic  = 0x67596969 // net/sunrpc/rpc_pipe.c
	xenfsMagic      = 0xabba1974 // include/uapi/linux/magic.h
	gadgetfsMagic   = 0xaee71ee7 // drivers/usb/gadget/legacy/inode.c
	functionfsMagic = 0xa647361  // drivers/usb/gadget/function/f_fs.c
)

// An fdReader reads a descriptor without the runtime's poller, which has no use for regular files.
type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
