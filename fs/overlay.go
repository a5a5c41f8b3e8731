package fs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An overlay builds a throwaway copy of the host's files: what is read comes from the host, what is written
// goes to a tmpfs. An overlay never looks below a mount point, so each disk of the host gets its own.
//
// Layers are named by paths relative to the scratch, the working directory meanwhile: every kernel takes
// those (descriptors only from 6.13), no character of the host's paths has to be escaped, and the
// container's mountinfo tells nothing.
type overlay struct {
	config  *Config
	proc    int      // borrowed: a procfs
	scratch int      // borrowed: an attached tmpfs; set by build
	userns  *os.File // borrowed: maps the owners of files; nil = none
	root    *os.File // the result
	layers  []layer
}

// A layer is one file system of the host.
type layer struct {
	mountEntry
	lower int   // the host's file system: a clone of its mount; -1 = not open
	dir   bool  // a directory is mounted; else a file
	blank []gap // what is not to be seen of it
}

// A gap is a path that an overlay is not to show.
type gap struct {
	name string // relative to the layer; never "."
	mode uint32 // of the empty directory that shows instead; 0 = as it was
}

// Directories that are the container's own, empty: what the host keeps there is not files but state.
func freshDirs() []gap { return []gap{{"/run", 0o755}, {"/tmp", 0o1777}, {"/var/tmp", 0o1777}} }

// build mounts what open found, on "/". scratch is an attached tmpfs.
func (o *overlay) build(scratch int) (*os.File, error) {
	o.scratch = scratch
	if err := unix.Fchdir(scratch); err != nil {
		return nil, fmt.Errorf("throwaway overlay: fchdir: %w", err)
	}
	err := o.mountAll()
	if cerr := unix.Chdir("/"); cerr != nil {
		err = errors.Join(err, fmt.Errorf("throwaway overlay: chdir /: %w", cerr))
	}
	if err != nil && o.root != nil {
		o.root.Close()
		o.root = nil
	}
	return o.root, err
}

func (o *overlay) close() {
	for _, l := range o.layers {
		if l.lower >= 0 {
			closeFD(l.lower)
		}
	}
}

// open finds the host's file systems, and clones each.
func (o *overlay) open() error {
	mounts, err := readMounts(o.proc)
	if err != nil {
		return fmt.Errorf("throwaway overlay: %w", err)
	}
	hidden, err := o.hiddenPaths()
	if err != nil {
		return fmt.Errorf("throwaway overlay: %w", err)
	}
	o.selectLayers(mounts, hidden)
	for i := range o.layers {
		if err := o.openLayer(&o.layers[i]); err != nil {
			return fmt.Errorf("throwaway overlay: %s: %w", o.layers[i].point, err)
		}
	}
	o.layers = slices.DeleteFunc(o.layers, func(l layer) bool { return l.lower < 0 })
	for _, d := range freshDirs() {
		o.hide(d.name, d.mode)
	}
	for _, name := range hidden {
		o.hide(name, 0)
	}
	return nil
}

// hiddenPaths are the files that Config.Hidden means, by the names that they have without links.
func (o *overlay) hiddenPaths() ([]string, error) {
	host, err := openAt2(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("/: %w", err)
	}
	defer closeFD(host)
	var found []string
	for _, pattern := range o.config.Hidden {
		names, err := expand(host, pattern)
		if err != nil {
			return nil, fmt.Errorf("hidden path: %w", err)
		}
		for _, name := range names {
			plain, err := o.realPath(name)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("hidden path: %s: %w", name, err)
			}
			found = append(found, plain)
		}
	}
	return found, nil
}

// realPath is name without links. Most have none, and need no look into procfs.
func (o *overlay) realPath(name string) (string, error) {
	fd, err := openAt2(unix.AT_FDCWD, name, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		closeFD(fd)
		return path.Clean(name), nil
	}
	if !errors.Is(err, unix.ELOOP) {
		return "", err
	}
	if fd, err = openAt2(unix.AT_FDCWD, name, unix.O_PATH, 0); err != nil {
		return "", err
	}
	defer closeFD(fd)
	return readLink(o.proc, "thread-self/fd/"+strconv.Itoa(fd))
}

// selectLayers: "/" first, then what else of the host lies on a disk, parents before what is mounted on them.
func (o *overlay) selectLayers(mounts []mountEntry, hidden []string) {
	o.layers = []layer{{mountEntry: mountEntry{point: "/"}, lower: -1}}
	for _, m := range mounts {
		if onDisk(&m) && !covered(m.point, hidden) {
			o.layers = append(o.layers, layer{mountEntry: m, lower: -1})
		}
	}
	slices.SortStableFunc(o.layers, func(a, b layer) int { return strings.Compare(a.point, b.point) })
}

// onDisk tells whether a mount holds files that stay, as opposed to the kernel's and the host's own state.
// Network file systems are left out: they may hang. Overlays in /var are other containers' roots.
func onDisk(m *mountEntry) bool {
	if m.point == "/" {
		return false // the root is taken as it is
	}
	switch m.fstype {
	case "overlay":
		return !under(m.point, "/var")
	case "btrfs", "zfs", "bcachefs", "virtiofs", "9p":
		return true // on devices without a number of their own
	}
	return m.major != 0
}

// covered: not to be seen, since something that we mount or leave empty lies over it.
func covered(point string, hidden []string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp"} {
		if under(point, dir) {
			return true
		}
	}
	return slices.ContainsFunc(hidden, func(h string) bool { return under(point, h) })
}

// openLayer clones a mount without what is mounted below it. One that isn't found at its mount point, since
// another covers it or it has just gone, is left out.
func (o *overlay) openLayer(l *layer) error {
	fd, err := openAt2(unix.AT_FDCWD, l.point, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil && l.point != "/" {
		return nil
	}
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if l.point != "/" {
		if id, err := mountID(fd); err != nil || id != l.id {
			return nil
		}
	}
	l.lower, err = cloneTree(fd, false)
	if err != nil {
		l.lower = -1
		return err
	}
	err = setAttr(l.lower, false, layerAttr(o.userns))
	if errors.Is(err, unix.EINVAL) && o.userns != nil {
		if l.point == "/" {
			return fmt.Errorf("can't be ID-mapped on this kernel; use a root file system of your own (--rootfs): %w", err)
		}
		return setAttr(l.lower, false, layerAttr(nil)) // its owners show as nobody
	}
	return err
}

// hide leaves name, a clean path of the host, out of the layer that shows it.
func (o *overlay) hide(name string, mode uint32) {
	for i := len(o.layers) - 1; i >= 0; i-- {
		l := &o.layers[i]
		if name != l.point && under(name, l.point) {
			l.blank = append(l.blank, gap{inside(name[len(strings.TrimSuffix(l.point, "/")):]), mode})
			return
		}
	}
}

// mountAll mounts the overlay of "/", and the others on it. The working directory is the scratch.
func (o *overlay) mountAll() error {
	for i := range o.layers {
		l := &o.layers[i]
		if err := o.mountLayer(l, strconv.Itoa(i)); err != nil {
			return fmt.Errorf("throwaway overlay: %s: %w", l.point, err)
		}
	}
	return nil
}

func (o *overlay) mountLayer(l *layer, n string) error {
	fd, err := o.overlayOn(l, n)
	if l.point == "/" {
		if err != nil {
			return fmt.Errorf("this host's root can't be overlaid; use a root file system of your own (--rootfs): %w", err)
		}
		o.root = os.NewFile(uintptr(fd), "root")
		return attachOnRoot(fd)
	}
	if err == nil {
		defer closeFD(fd)
	} else {
		// Not every file system can be a lower layer, a file never: it shows read-only then.
		fd = l.lower
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
		if err := setAttr(fd, false, attr); err != nil {
			return err
		}
	}
	// Made where it is missing: what it lies on may be the host's own state, such as a tmpfs.
	target, err := makeTarget(int(o.root.Fd()), l.point, l.dir)
	if err != nil {
		return err
	}
	defer closeFD(target)
	return attach(fd, target)
}

var errNotOverlaid = errors.New("is shown read-only")

// overlayOn makes l's overlay, detached, from directories of the scratch: l lower, u upper, w work.
func (o *overlay) overlayOn(l *layer, n string) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(l.lower, &st); err != nil {
		return -1, err
	}
	if l.dir = isDir(st.Mode); !l.dir || l.fstype == "squashfs" || l.fstype == "iso9660" || l.fstype == "erofs" {
		return -1, errNotOverlaid
	}
	lower, err := makeIn(o.scratch, "l"+n, 0o700)
	if err != nil {
		return -1, fmt.Errorf("scratch: %w", err)
	}
	defer closeFD(lower)
	if err := attach(l.lower, lower); err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(o.scratch, "w"+n, 0o700); err != nil {
		return -1, fmt.Errorf("scratch: %w", err)
	}
	if err := fillUpper(l, o.scratch, "u"+n, &st); err != nil {
		return -1, err
	}
	params := []string{"lowerdir=l" + n, "upperdir=u" + n, "workdir=w" + n}
	return newMount("overlay", unix.MOUNT_ATTR_NODEV, withLabel(o.config.MountLabel, params)...)
}

// withLabel adds the SELinux context that all of a new superblock is to have.
func withLabel(label string, params []string) []string {
	if label == "" {
		return params
	}
	return append(params, "context="+label)
}
