package fs

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// DefaultMaskedPaths are the paths that an unprivileged container is not to see, podman's: they tell of the
// host's hardware, memory and keys, or let it be timed. The list is the caller's.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/system/cpu/cpu*/thermal_throttle",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
	}
}

// DefaultReadonlyPaths are the paths that an unprivileged container is not to write, podman's: they are the
// host's settings. The list is the caller's.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Restrict masks and write-protects Config's paths. One that doesn't exist is skipped; anything else that
// goes wrong with one is an error. It can be called before or after Pivot, but after MountSystem.
func (r *Root) Restrict() error {
	if r.config.Privileged {
		return nil
	}
	for _, name := range r.config.ReadonlyPaths {
		if err := r.protect(name); err != nil {
			return fmt.Errorf("read-only path %s: %w", name, err)
		}
	}
	for _, name := range r.config.MaskedPaths {
		if err := r.maskAll(name); err != nil {
			return fmt.Errorf("masked path %s: %w", name, err)
		}
	}
	return nil
}

// SetReadonly write-protects the root itself, if asked, and what was mounted below it when it was opened.
// Everything that was mounted since keeps its own flags.
func (r *Root) SetReadonly() error {
	if !r.config.Readonly {
		return nil
	}
	for _, fd := range append([]int{r.fd()}, r.subs...) {
		if err := setAttr(fd, false, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("read-only root: %w", err)
		}
	}
	return nil
}

// protect mounts a read-only clone of name on itself: a remount would change the flags that it has.
func (r *Root) protect(name string) error {
	dir, name := r.locate(name)
	target, err := openIn(dir, name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(target)
	tree, err := cloneTree(target, true)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	if err := setAttr(tree, true, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return attach(tree, target)
}

func isMissing(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// locate splits a path into a directory that is held open and the rest. What lies in /proc or /sys is looked up
// from the very mount: who shares the root file system may rename its mount point, and put another directory
// there.
func (r *Root) locate(name string) (dir int, rest string) {
	name = path.Clean(name)
	switch {
	case r.procDir >= 0 && under(name, "/proc"):
		return r.procDir, name[len("/proc"):]
	case r.sysDir >= 0 && under(name, "/sys"):
		return r.sysDir, name[len("/sys"):]
	}
	return r.fd(), name
}

func (r *Root) maskAll(pattern string) error {
	dir, pattern := r.locate(pattern)
	names, err := expand(dir, pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.mask(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// mask hides name in dir: the descriptor of what is there comes first, so that only its own absence is taken for
// nothing to hide.
func (r *Root) mask(dir int, name string) error {
	target, err := openIn(dir, name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	return r.maskTarget(target, isDir(st.Mode))
}

func (r *Root) maskTarget(target int, dir bool) error {
	if r.null < 0 {
		return errors.New("needs /dev")
	}
	source := r.null
	if dir {
		if r.blank < 0 {
			return r.firstBlank(target)
		}
		source = r.blank
	}
	tree, err := cloneTree(source, false)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	return attach(tree, target)
}

// firstBlank mounts the empty directory that later masks are clones of: one superblock for all of them.
func (r *Root) firstBlank(target int) error {
	params := withLabel(r.config.MountLabel, []string{"mode=755", "nr_blocks=1", "nr_inodes=2"})
	fd, err := newMount("tmpfs", dataOnly|unix.MOUNT_ATTR_RDONLY, params...)
	if err != nil {
		return err
	}
	if err := attach(fd, target); err != nil {
		closeFD(fd)
		return err
	}
	r.blank = fd
	return nil
}

// maskHidden masks what of Config.Hidden is still to be seen: in parts of the host's root that show without
// an overlay of their own. It comes before the user's volumes, which are what the user wants.
func (r *Root) maskHidden() error {
	if r.config.Root != "" {
		return nil
	}
	for _, pattern := range r.config.Hidden {
		names, err := expand(r.fd(), pattern)
		if err != nil {
			return fmt.Errorf("hidden path %s: %w", pattern, err)
		}
		for _, name := range names {
			if err := r.maskFull(name); err != nil {
				return fmt.Errorf("hidden path %s: %w", name, err)
			}
		}
	}
	return nil
}

// maskFull masks name, unless it is a directory that is empty already.
func (r *Root) maskFull(name string) error {
	fd, err := openIn(r.fd(), name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	closeFD(fd)
	if list, err := listIn(r.fd(), name); err == nil && len(list) == 0 {
		return nil
	}
	return r.mask(r.fd(), name)
}
