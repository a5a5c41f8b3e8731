package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Pivot makes the root the root of the mount namespace and detaches the host's. The working directory is "/"
// then. An initramfs can't be pivoted away from: what NoPivot asks for is done then too.
func (r *Root) Pivot() error {
	if err := unix.Fchdir(r.fd()); err != nil {
		return fmt.Errorf("pivot: fchdir: %w", err)
	}
	if r.config.NoPivot {
		return r.moveRoot()
	}
	// The same directory twice puts the old root on top of the new (pivot_root(2)); no directory for
	// it is needed.
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) && onInitramfs() {
		return r.moveRoot()
	}
	if err != nil {
		return fmt.Errorf("pivot: pivot_root: %w", err)
	}
	if err := r.detachOld(); err != nil {
		return fmt.Errorf("pivot: detach the old root: %w", err)
	}
	return r.leaveOld()
}

// detachOld takes the old root off the new one. It lies on its root, where "/.." finds the topmost mount, but
// "/" doesn't.
func (r *Root) detachOld() error {
	root, err := mountID(r.fd())
	if err != nil {
		return err
	}
	for range maxStack { // once, unless the host has mounts stacked on its root
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, "/..", unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
			return fmt.Errorf("statx: %w", err)
		}
		if int(st.Mnt_id) == root {
			return nil
		}
		if err := unix.Unmount("/..", unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return errors.New("there is no end of mounts on /")
}

func (r *Root) leaveOld() error {
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("pivot: chdir /: %w", err)
	}
	closeFD(r.scratch)
	r.scratch = -1
	return nil
}

func onInitramfs() bool {
	var st unix.Statfs_t
	return unix.Statfs("/", &st) == nil && (st.Type == unix.RAMFS_MAGIC || st.Type == unix.TMPFS_MAGIC)
}

// moveRoot makes the root, which lies on top of "/" already, the process's by chroot. The old root stays
// below, out of reach of "..": each mount on the way lies on the root of the next. But who may unmount could
// come to it; so all that is mounted in it goes first, /proc and /sys above all.
func (r *Root) moveRoot() error {
	mounts, err := readMounts(r.procFD())
	if err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	for _, m := range mounts {
		if m.parent != r.hostID || m.point == "/" {
			continue
		}
		if err := r.unmountOld(m.point); err != nil {
			return fmt.Errorf("pivot: detach %s: %w", m.point, err)
		}
	}
	if err := unix.Fchdir(r.fd()); err != nil {
		return fmt.Errorf("pivot: fchdir: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("pivot: chroot: %w", err)
	}
	return r.leaveOld()
}

// How many mounts may lie on one directory.
const maxStack = 64

// unmountOld takes off all that lies on a mount point of the old root. Mounts of another user namespace can't
// be taken off one by one (EINVAL), by the container neither.
func (r *Root) unmountOld(point string) error {
	for range maxStack {
		var st unix.Statx_t
		flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
		err := unix.Statx(unix.AT_FDCWD, point, flags, unix.STATX_MNT_ID, &st)
		if errors.Is(err, unix.ENOENT) || err == nil && int(st.Mnt_id) == r.hostID {
			return nil
		}
		if err != nil {
			return err
		}
		err = unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) && r.config.Userns {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.New("there is no end of mounts on it")
}
