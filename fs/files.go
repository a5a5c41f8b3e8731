package fs

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// WriteFiles makes Config.Files and mounts each. What the user has mounted on the same path stays. They can
// be written inside, unless the root is read-only, and go with the container.
func (r *Root) WriteFiles() error {
	defer unix.Umask(unix.Umask(0))
	for i := range r.config.Files {
		f := &r.config.Files[i]
		if r.covered(f.Path) {
			continue
		}
		if err := r.writeFile("f"+strconv.Itoa(i), f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	return nil
}

// writeFile makes f in the scratch, under name, and mounts a clone of it.
func (r *Root) writeFile(name string, f *File) error {
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	fd, err := unix.Openat(r.scratch, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	file := os.NewFile(uintptr(fd), f.Path)
	defer file.Close()
	if _, err := file.Write(f.Content); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	tree, err := cloneTree(fd, false)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	attr := &unix.MountAttr{Attr_set: dataOnly}
	if r.config.Readonly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := setAttr(tree, false, attr); err != nil {
		return err
	}
	target, err := r.openTarget(f.Path, unix.S_IFREG, false)
	if err != nil {
		return err
	}
	defer closeFD(target)
	return attach(tree, target)
}
