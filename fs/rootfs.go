package fs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openRootfs clones the tree at c.Root with all that is mounted below; a link is followed once, here. userns,
// if there is one, maps its owners.
func openRootfs(c *Config, userns *os.File) (*os.File, error) {
	fd, err := openAt2(unix.AT_FDCWD, c.Root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("root file system: %s: %w", c.Root, err)
	}
	defer closeFD(fd)
	if err := checkNotHost(c.Root, fd); err != nil {
		return nil, err
	}
	tree, err := cloneTree(fd, true)
	if err != nil {
		return nil, fmt.Errorf("root file system: %s: %w", c.Root, err)
	}
	if err := setAttr(tree, true, layerAttr(userns)); err != nil {
		closeFD(tree)
		return nil, rootfsError(c.Root, userns != nil, err)
	}
	return os.NewFile(uintptr(tree), "root"), nil
}

// layerAttr is what a piece of the host is given before anything else is done with it.
func layerAttr(userns *os.File) *unix.MountAttr {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if userns != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns.Fd())
	}
	return attr
}

func rootfsError(name string, idmap bool, err error) error {
	if idmap && errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("root file system: %s: its file system, or one mounted below it, can't be ID-mapped on this kernel: %w", name, err)
	}
	return fmt.Errorf("root file system: %s: %w", name, err)
}

func checkNotHost(name string, fd int) error {
	var st, host unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("root file system: %s: %w", name, err)
	}
	if err := unix.Stat("/", &host); err != nil {
		return fmt.Errorf("root file system: /: %w", err)
	}
	return refuseHostRoot(name, &st, &host)
}

// Noexec tells whether the file system that name lies on is mounted noexec: then executing it ends in EACCES
// whatever its mode.
func Noexec(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(name, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}
