package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// exeMinFD keeps the binary's descriptor out of the way of those that the child gets by number.
const exeMinFD = 64

// tryOverlay is false in tests of the fallback.
var tryOverlay = true

// openSelf opens a copy of the running binary that nobody can write to, whatever rights it gets: a program in the
// container could reach the binary that it was started by through /proc/PID/exe and overwrite it
// (CVE-2019-5736). An overlay without an upper layer has nowhere to write to and costs 0.06 ms; where it can't be had a
// sealed copy in memory does, at a millisecond and the memory. A read-only bind would not do: whoever holds the
// mount can make it writable again.
func openSelf(scratch string) (*selfExe, error) {
	self, overlayErr := overlaySelf(scratch)
	if overlayErr != nil {
		mem, err := memfdSelf()
		if err != nil {
			return nil, errors.Join(overlayErr, err)
		}
		self = &selfExe{exe: mem}
	}
	fd, err := unix.FcntlInt(self.exe.Fd(), unix.F_DUPFD_CLOEXEC, exeMinFD)
	if errors.Is(err, unix.EINVAL) { // fcntl(2): the number is not below the limit
		err = fmt.Errorf("the limit of descriptors is below %d; raise it with ulimit -n", exeMinFD+1)
	}
	_ = self.exe.Close()
	if err != nil {
		self.exe = nil
		self.Close()
		return nil, err
	}
	self.exe = os.NewFile(uintptr(fd), "nsinit")
	return self, nil
}

// A selfExe is the protected copy, open. To close the mount that it lies in takes the kernel a third of a
// millisecond, and has time until the child runs.
type selfExe struct{ exe, mount *os.File }

// path is where to execute it.
func (s *selfExe) path() string { return fmt.Sprintf("/proc/self/fd/%d", s.exe.Fd()) }

// Close closes it.
func (s *selfExe) Close() {
	_ = s.exe.Close()
	_ = s.mount.Close()
}

// sealedArgv0 says that this process is executed from the protected copy. It is no environment variable, which a
// child could inherit.
const sealedArgv0 = "nsinit: sealed"

// sealSelf executes nsinit once more from the protected copy, with the same arguments, unless that has been done.
func (r *Runtime) sealSelf() error {
	if os.Args[0] == sealedArgv0 {
		return nil
	}
	if err := r.ensureRoot(); err != nil {
		return err
	}
	exe, err := openSelf(r.emptyDir())
	if err != nil {
		return err
	}
	args := append([]string{sealedArgv0}, os.Args[1:]...)
	return fmt.Errorf("nsinit once more: %w", syscall.Exec(exe.path(), args, os.Environ()))
}

// overlaySelf opens the binary through a detached overlay of its directory over scratch, an empty directory: an
// overlay without an upper layer needs two lower ones.
func overlaySelf(scratch string) (*selfExe, error) {
	if !tryOverlay {
		return nil, errors.New("overlay: not wanted")
	}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	mount, err := overlayOf(dir, scratch)
	if err != nil {
		return nil, err
	}
	self := &selfExe{mount: mount}
	fd, err := unix.Openat(int(mount.Fd()), filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		self.Close()
		return nil, fmt.Errorf("overlay: %w", err)
	}
	self.exe = os.NewFile(uintptr(fd), path)
	// The file may have been replaced since this process was started.
	if err := sameFile(self.exe); err != nil {
		self.Close()
		return nil, err
	}
	return self, nil
}

func overlayOf(dir *os.File, scratch string) (*os.File, error) {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("overlay: %w", err)
	}
	defer unix.Close(fsfd)
	// By way of the descriptor, so that no character of the path needs escaping.
	lower := fmt.Sprintf("/proc/self/fd/%d:%s", dir.Fd(), scratch)
	if err := unix.FsconfigSetString(fsfd, "lowerdir", lower); err != nil {
		return nil, fmt.Errorf("overlay: lowerdir: %w", err)
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("overlay: create: %w", err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, fmt.Errorf("overlay: mount: %w", err)
	}
	return os.NewFile(uintptr(mfd), "overlay"), nil
}

func sameFile(exe *os.File) error {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(exe.Fd()), &a); err != nil {
		return err
	}
	if err := unix.Stat("/proc/self/exe", &b); err != nil {
		return err
	}
	if a.Ino != b.Ino || a.Size != b.Size || a.Mtim != b.Mtim {
		return errors.New("overlay: the binary was replaced")
	}
	return nil
}

// memfdSelf copies the binary into memory and seals it.
func memfdSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	fd, err := unix.MemfdCreate("nsinit", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before 6.3 every memfd could be executed
		fd, err = unix.MemfdCreate("nsinit", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "nsinit")
	_, err = mem.ReadFrom(self)
	if err == nil {
		err = mem.Chmod(0o755)
	}
	if err == nil {
		_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("memfd: %w", err)
	}
	// A descriptor open for writing can't be executed (ETXTBSY).
	ro, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", mem.Fd()), os.O_RDONLY|unix.O_CLOEXEC, 0)
	return ro, errors.Join(err, mem.Close())
}
