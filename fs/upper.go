package fs

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// An upper is an overlay's upper directory while it is prepared: l's gaps are made before the overlay is
// mounted, as it would make them itself (whiteouts and opaque directories,
// Documentation/filesystems/overlayfs.rst): so there is nothing that could be unmounted again.
type upper struct {
	lower int            // borrowed: the lower root
	dirs  map[string]int // the directories made so far, O_PATH, by their names; "." is the upper directory
}

// fillUpper makes l's upper directory, name in scratch, with the owner and mode of the lower root.
func fillUpper(l *layer, scratch int, name string, st *unix.Stat_t) error {
	root, err := makeLike(scratch, name, st)
	if err != nil {
		return fmt.Errorf("upper directory: %w", err)
	}
	u := upper{lower: l.lower, dirs: map[string]int{".": root}}
	defer u.close()
	for _, g := range l.blank {
		if err := u.leaveOut(g); err != nil {
			return fmt.Errorf("hide /%s: %w", g.name, err)
		}
	}
	return nil
}

func (u *upper) close() {
	for _, fd := range u.dirs {
		closeFD(fd)
	}
}

// leaveOut makes what hides g.
func (u *upper) leaveOut(g gap) error {
	st, err := u.statLower(g.name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // not there; a link on the way leads to what is hidden by its own name
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if isDir(st.Mode) {
		if g.mode != 0 {
			st.Mode = unix.S_IFDIR | g.mode
		}
		return u.makeOpaque(g.name, &st)
	}
	parent, err := u.dir(path.Dir(g.name))
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent, path.Base(g.name), unix.S_IFCHR, 0) // a whiteout
	if errors.Is(err, unix.EEXIST) {
		return nil // named twice
	}
	return err
}

func (u *upper) statLower(name string) (st unix.Stat_t, err error) {
	fd, err := openAt2(u.lower, name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return st, err
	}
	defer closeFD(fd)
	return st, unix.Fstat(fd, &st)
}

// dir returns a directory of the upper one, and makes it as it is in the lower one.
func (u *upper) dir(name string) (int, error) {
	if fd, ok := u.dirs[name]; ok {
		return fd, nil
	}
	st, err := u.statLower(name)
	if err != nil {
		return -1, err
	}
	return u.makeDir(name, &st)
}

func (u *upper) makeDir(name string, st *unix.Stat_t) (int, error) {
	parent, err := u.dir(path.Dir(name))
	if err != nil {
		return -1, err
	}
	fd, err := makeLike(parent, path.Base(name), st)
	if err != nil {
		return -1, err
	}
	u.dirs[name] = fd
	return fd, nil
}

// makeOpaque makes an empty directory that what it covers doesn't shine through. If it is there already, as
// the parent of another gap, it takes that in.
func (u *upper) makeOpaque(name string, st *unix.Stat_t) error {
	dir, ok := u.dirs[name]
	if !ok {
		var err error
		if dir, err = u.makeDir(name, st); err != nil {
			return err
		}
	}
	fd, err := openAt2(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // an O_PATH descriptor takes no attributes
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("setxattr trusted.overlay.opaque on tmpfs: %w", err)
	}
	return nil
}

// makeLike makes a directory with the owner and mode that another one has.
func makeLike(dir int, name string, st *unix.Stat_t) (int, error) {
	fd, err := makeIn(dir, name, st.Mode&0o7777)
	if err != nil {
		return -1, err
	}
	if st.Uid == 0 && st.Gid == 0 { // as it is
		return fd, nil
	}
	if err := unix.Fchownat(fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("chown %s: %w", name, err)
	}
	return fd, nil
}

// makeIn makes a directory, under an umask of 0, and opens it.
func makeIn(dir int, name string, mode uint32) (int, error) {
	if err := unix.Mkdirat(dir, name, mode); err != nil {
		return -1, err
	}
	return openAt(dir, name)
}
