package fs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// fillUpper prepares an overlay's upper directory: the owner and mode of the lower root, and l's gaps. They
// are made before the overlay is mounted, as it would make them itself (whiteouts and opaque directories,
// Documentation/filesystems/overlayfs.rst): so there is nothing that could be unmounted again.
func (o *overlay) fillUpper(l *layer, name string, st *unix.Stat_t) error {
	if err := copyOwner(o.scratch, name, st); err != nil {
		return fmt.Errorf("upper directory: %w", err)
	}
	upper, err := openAt(o.scratch, name)
	if err != nil {
		return fmt.Errorf("upper directory: %w", err)
	}
	defer closeFD(upper)
	for _, g := range l.blank {
		if err := leaveOut(l.lower, upper, g); err != nil {
			return fmt.Errorf("hide /%s: %w", g.name, err)
		}
	}
	return nil
}

// leaveOut puts into upper what hides g of lower.
func leaveOut(lower, upper int, g gap) error {
	fd, err := openAt2(lower, g.name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // not there; a link on the way leads to what is hidden by its own name
	}
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	parent, err := copyParents(lower, upper, path.Dir(g.name))
	if err != nil {
		return err
	}
	defer closeFD(parent)
	if isDir(st.Mode) {
		if g.mode != 0 {
			st.Mode = unix.S_IFDIR | g.mode
		}
		return makeOpaque(parent, path.Base(g.name), &st)
	}
	err = unix.Mknodat(parent, path.Base(g.name), unix.S_IFCHR, 0) // a whiteout
	if errors.Is(err, unix.EEXIST) {
		return nil // named twice
	}
	return err
}

// copyParents makes the directories of name in upper as they are in lower, and returns the last one.
func copyParents(lower, upper int, name string) (int, error) {
	from, err := openAt(lower, ".")
	if err != nil {
		return -1, err
	}
	to, err := openAt(upper, ".")
	if err != nil {
		closeFD(from)
		return -1, err
	}
	for part := range strings.SplitSeq(name, "/") {
		if from, to, err = copyDir(from, to, part); err != nil {
			break
		}
	}
	closeFD(from)
	if err != nil {
		closeFD(to)
		return -1, err
	}
	return to, nil
}

// copyDir goes from two directories to name in both, making it in the second. It closes the old descriptors
// where it returns new ones.
func copyDir(from, to int, name string) (newFrom, newTo int, err error) {
	if name == "." {
		return from, to, nil
	}
	lower, err := openAt(from, name)
	if err != nil {
		return from, to, err
	}
	closeFD(from)
	var st unix.Stat_t
	if err := unix.Fstat(lower, &st); err != nil {
		return lower, to, err
	}
	err = unix.Mkdirat(to, name, 0o700)
	if err == nil {
		err = copyOwner(to, name, &st)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return lower, to, err
	}
	upper, err := openAt(to, name)
	if err != nil {
		return lower, to, err
	}
	closeFD(to)
	return lower, upper, nil
}

// copyOwner gives name in dir, a directory of our own, the owner, mode and times of another.
func copyOwner(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown %s: %w", name, err)
	}
	if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
		return fmt.Errorf("chmod %s: %w", name, err)
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("utimensat %s: %w", name, err)
	}
	return nil
}

// makeOpaque makes an empty directory that what it covers doesn't shine through.
func makeOpaque(parent int, name string, st *unix.Stat_t) error {
	err := unix.Mkdirat(parent, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		err = nil // named twice, or the parent of another gap, which this one takes in
	}
	if err != nil {
		return err
	}
	if err := copyOwner(parent, name, st); err != nil {
		return err
	}
	dir, err := openAt2(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	if err := unix.Fsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("setxattr trusted.overlay.opaque on tmpfs: %w", err)
	}
	return nil
}
