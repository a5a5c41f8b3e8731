package fs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Root is the container's root while it is built. It owns its descriptors. It belongs to the one thread
// that builds it, changes the working directory and, while a method runs, the umask of the process.
type Root struct {
	config     *Config
	dir        *os.File // the root mount, O_PATH
	proc       *os.File // a procfs that is mounted nowhere
	scratch    int      // a tmpfs on the old root; -1 once that is gone
	null       int      // a verified /dev/null that masks are made of; -1 before MountSystem
	blank      int      // the empty tmpfs that masks directories; -1 before the first
	procDir    int      // the container's /proc, O_PATH; -1 before MountSystem
	sysDir     int      // and its /sys
	hostID     int      // the mount that was "/" before
	hostSys    int      // a clone of the host's /sys, for a user namespace; -1 = none, for hostSysErr
	hostSysErr error
	volumes    []volume
	subs       []int // what was mounted below the root by itself: becomes read-only with it
}

// MakePrivate cuts the mount namespace off from the host's: nothing done in it reaches the host. Mounts
// that the host makes still arrive until Pivot, and later on volumes that ask for it (slave, shared).
func MakePrivate() error {
	err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_SLAVE})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("propagation: /: is not a mount point; a chroot can't hold containers: %w", err)
	}
	if err != nil {
		return fmt.Errorf("propagation: /: mount_setattr: %w", err)
	}
	return nil
}

// NewProcfs returns a procfs of the calling process's pid namespace that is mounted nowhere. The caller
// owns it.
func NewProcfs() (*os.File, error) {
	fd, err := newMount("proc", dataOnly)
	if err != nil {
		return nil, fmt.Errorf("private procfs: %w", err)
	}
	return os.NewFile(uintptr(fd), "proc"), nil
}

// Open makes the root mount: the rootfs, the throwaway overlay, or prepared (may be nil), which PrepareUserns
// made. It takes prepared over, and procfs, of NewProcfs, and clones the sources of all volumes before anything is
// mounted.
func Open(c *Config, prepared, procfs *os.File) (*Root, error) {
	r := &Root{config: c, dir: prepared, proc: procfs, scratch: -1, null: -1, blank: -1, procDir: -1, sysDir: -1, hostSys: -1}
	if err := r.open(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Root) open() error {
	defer unix.Umask(unix.Umask(0))
	if err := r.openHost(); err != nil {
		return err
	}
	if err := r.openVolumes(); err != nil {
		return err
	}
	if err := r.makeRoot(); err != nil {
		return err
	}
	return r.findSubmounts()
}

func (r *Root) openHost() error {
	host, err := openAt2(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("old root: /: %w", err)
	}
	defer closeFD(host)
	if r.hostID, err = mountID(host); err != nil {
		return fmt.Errorf("old root: /: %w", err)
	}
	if r.config.Userns {
		r.hostSys, r.hostSysErr = r.cloneSys()
	}
	return nil
}

func (r *Root) openVolumes() error {
	for i := range r.config.Mounts {
		v, err := parseVolume(&r.config.Mounts[i])
		if err != nil {
			return err
		}
		err = v.open()
		r.volumes = append(r.volumes, v) // also on error: it may hold a descriptor
		if err != nil {
			return err
		}
	}
	return nil
}

// makeRoot makes the root mount and attaches it. What is on the host is opened before anything is attached on
// "/": after that a ".." on the way to it would lead there.
func (r *Root) makeRoot() (err error) {
	o := overlay{config: r.config, proc: r.procFD()}
	defer o.close()
	switch {
	case r.dir != nil:
	case r.config.Root != "":
		r.dir, err = openRootfs(r.config, nil)
	case r.config.Userns:
		err = errors.New("root file system: the host's root can't be overlaid from inside a user namespace: PrepareUserns makes it")
	default:
		err = o.open()
	}
	if err != nil {
		return err
	}
	if r.scratch, err = newScratch(); err != nil {
		return err
	}
	if r.dir != nil {
		return attachOnRoot(r.fd())
	}
	r.dir, err = o.build(r.scratch)
	return err
}

// attachOnRoot mounts the mount fd on top of all that lies on "/". Who has "/" as its root goes on to see
// what is below.
func attachOnRoot(fd int) error {
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("root file system: move_mount on /: %w", err)
	}
	return nil
}

// newScratch makes the tmpfs for what must be attached somewhere, but not be seen. It lies on the old root's
// /sys, which nobody needs any more: on "/" itself it would take a second umount in Pivot, of 0.1 ms.
func newScratch() (int, error) {
	fd, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=700")
	if err != nil {
		return -1, fmt.Errorf("scratch: %w", err)
	}
	dir, err := openAt2(unix.AT_FDCWD, "/sys", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		err = attach(fd, dir)
		closeFD(dir)
	} else {
		err = attachOnRoot(fd)
	}
	if err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("scratch: %w", err)
	}
	return fd, nil
}

// findSubmounts remembers what is mounted below the root already, if it is to become read-only with it.
func (r *Root) findSubmounts() error {
	if !r.config.Readonly {
		return nil
	}
	root, err := mountID(r.fd())
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	mounts, err := readMounts(r.procFD())
	if err != nil {
		return err
	}
	for _, m := range below(mounts, root) {
		// Mounts that another one covers are not found by their path, and need not be.
		fd, err := openAt2(r.fd(), inside(m.point), unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			continue
		}
		if id, err := mountID(fd); err != nil || id != m.id {
			closeFD(fd)
			continue
		}
		r.subs = append(r.subs, fd)
	}
	return nil
}

// Dir returns the root as an O_PATH descriptor, owned by r.
func (r *Root) Dir() *os.File { return r.dir }

// Proc returns a procfs of the container's pid namespace that is mounted nowhere, owned by r.
func (r *Root) Proc() *os.File { return r.proc }

// Close gives up r's descriptors; it can be called at any time, and more than once. The mounts stay.
func (r *Root) Close() error {
	for i := range r.volumes {
		r.volumes[i].close()
	}
	for _, fd := range r.subs {
		closeFD(fd)
	}
	for _, fd := range []*int{&r.scratch, &r.null, &r.blank, &r.procDir, &r.sysDir, &r.hostSys} {
		if *fd >= 0 {
			closeFD(*fd)
			*fd = -1
		}
	}
	var err error
	for _, f := range []**os.File{&r.dir, &r.proc} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	r.volumes, r.subs = nil, nil
	return err
}

func (r *Root) fd() int     { return int(r.dir.Fd()) }
func (r *Root) procFD() int { return int(r.proc.Fd()) }
