package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MountSystem mounts proc, sysfs, cgroup2, /dev with its nodes and links, devpts, shm, mqueue. pty may be nil;
// else its devpts, which MountSystem closes, becomes /dev/pts and its slave /dev/console.
func (r *Root) MountSystem(pty *Pty) error {
	defer unix.Umask(unix.Umask(0))
	for _, mount := range []func() error{
		r.mountProc,
		r.mountSys,
		r.mountCgroup,
		func() error { return r.mountDev(pty) },
		r.maskHidden,
	} {
		if err := mount(); err != nil {
			return err
		}
	}
	return nil
}

// mountAt makes a mount of type fstype on target, and returns both as one descriptor.
func (r *Root) mountAt(target int, name, fstype string, attrs int, params ...string) (int, error) {
	fd, err := newMount(fstype, attrs, params...)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", name, err)
	}
	if err := attach(fd, target); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("mount %s: %w", name, err)
	}
	return fd, nil
}

// systemDir opens a directory of the root that a system mount goes on, and makes it if it is missing. A link
// there is refused, wherever it leads: all that is done below it later would be done elsewhere. Another container of the
// same root may make it first.
func (r *Root) systemDir(name string) (int, error) {
	fd, err := openAt(r.fd(), name)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdirat(r.fd(), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("mount /%s: the directory is missing and can't be made: %w", name, err)
		}
		fd, err = openAt(r.fd(), name)
	}
	if err != nil {
		return -1, fmt.Errorf("mount /%s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("mount /%s: %w", name, err)
	}
	if !isDir(st.Mode) {
		closeFD(fd)
		return -1, fmt.Errorf("mount /%s: the root file system has %s there, not a directory", name, kind(st.Mode))
	}
	return fd, nil
}

func (r *Root) mountProc() error {
	target, err := r.systemDir("proc")
	if err != nil {
		return err
	}
	defer closeFD(target)
	r.procDir, err = r.mountAt(target, "/proc", "proc", dataOnly)
	return err
}

// mountSys mounts a sysfs of the container's network namespace. Where that belongs to another user namespace
// than ours, the kernel lets nobody mount one (EPERM): the host's is bound then. A new mount is preferred
// even if the network is the host's: it brings none of the file systems mounted below the host's /sys along.
func (r *Root) mountSys() error {
	target, err := r.systemDir("sys")
	if err != nil {
		return err
	}
	defer closeFD(target)
	fd := -1
	if !r.config.Userns || !r.config.HostNet {
		fd, err = newMount("sysfs", dataOnly|r.readonlyBit())
	}
	if fd < 0 && r.config.Userns && (err == nil || errors.Is(err, unix.EPERM)) {
		fd, err = r.hostSys, r.hostSysErr
		r.hostSys = -1
	}
	if err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	r.sysDir = fd
	if err := attach(fd, target); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return nil
}

// readonlyBit is for what only a privileged container may write.
func (r *Root) readonlyBit() int {
	if r.config.Privileged {
		return 0
	}
	return unix.MOUNT_ATTR_RDONLY
}

// cloneSys takes the host's /sys with all that is mounted below: in a user namespace's mount namespace
// nothing can be had without what covers parts of it.
func (r *Root) cloneSys() (int, error) {
	host, err := openAt2(unix.AT_FDCWD, "/sys", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, fmt.Errorf("the host's /sys: %w", err)
	}
	defer closeFD(host)
	if fsType(host) != unix.SYSFS_MAGIC {
		return -1, errors.New("the host's /sys: is not a sysfs")
	}
	tree, err := cloneTree(host, true)
	if err != nil {
		return -1, fmt.Errorf("the host's /sys: %w", err)
	}
	attr := &unix.MountAttr{Attr_set: dataOnly | uint64(r.readonlyBit()), Propagation: unix.MS_PRIVATE}
	if err := setAttr(tree, true, attr); err != nil {
		closeFD(tree)
		return -1, fmt.Errorf("the host's /sys: %w", err)
	}
	return tree, nil
}

// mountCgroup mounts cgroup2, of which the container sees its own part, the root of its cgroup namespace.
// That is so on a host with version 1 or both as well.
func (r *Root) mountCgroup() error {
	if !r.config.Cgroup && !r.config.HostNet {
		return nil
	}
	target, err := openIn(r.sysDir, "fs/cgroup")
	if errors.Is(err, unix.ENOENT) && !r.config.Cgroup {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount /sys/fs/cgroup: %w", err)
	}
	defer closeFD(target)
	fstype, attrs := "cgroup2", dataOnly|r.readonlyBit()
	if !r.config.Cgroup { // a bound /sys may show the host's tree
		fstype, attrs = "tmpfs", dataOnly|unix.MOUNT_ATTR_RDONLY
	}
	fd, err := r.mountAt(target, "/sys/fs/cgroup", fstype, attrs)
	if err != nil {
		return err
	}
	closeFD(fd)
	return nil
}
