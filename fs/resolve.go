package fs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel's own limit of links in one path (path_resolution(7)).
const maxLinks = 40

// openIn resolves name with root as its "/": links and ".." stay below it, links of procfs that jump to a
// file are refused (ELOOP). It returns an O_PATH descriptor of what a mount on name would cover.
func openIn(root int, name string) (int, error) {
	return openAt2(root, inside(name), unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// inside makes a path relative, for openat2.
func inside(name string) string {
	name = strings.TrimLeft(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

func openAt2(dir int, name string, flags, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	// EAGAIN: a rename or mount somewhere on the machine raced a ".." (openat2(2)).
	for range 128 {
		fd, err := unix.Openat2(dir, name, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// openAt opens one component, link or not, as an O_PATH descriptor.
func openAt(dir int, name string) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// makeTarget returns the mount point name below root as an O_PATH descriptor. What is missing of it is made:
// directories, and at the end a directory (dir) or an empty file.
func makeTarget(root int, name string, dir bool) (int, error) {
	fd, err := openIn(root, name)
	if errors.Is(err, unix.ENOENT) {
		fd, err = walkTo(root, name, dir)
	}
	if err != nil {
		return -1, fmt.Errorf("mount point %s: %w", name, err)
	}
	return fd, nil
}

// A walk goes down a path one component at a time, each by the descriptor of the one before. It follows
// links itself: their text is read by descriptor, "/" is the walk's root, and ".." is the descriptor that
// the walk came from. So the kernel never resolves more than one name, and none of it outside root, whoever
// renames what meanwhile.
type walk struct {
	root  int      // borrowed
	stack []int    // from below root to here
	rest  []string // components still to go
	links int      // followed so far
	dir   bool     // the last one is to be a directory
}

// walkTo is makeTarget's slow way, for paths of which a part is missing, which openat2 can't make, dangling
// links included.
func walkTo(root int, name string, dir bool) (int, error) {
	w := walk{root: root, rest: strings.Split(inside(name), "/"), dir: dir}
	defer w.reset()
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(name); err != nil {
			return -1, err
		}
	}
	fd, err := unix.FcntlInt(uintptr(w.here()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("dup: %w", err)
	}
	return fd, nil
}

func (w *walk) here() int {
	if len(w.stack) == 0 {
		return w.root
	}
	return w.stack[len(w.stack)-1]
}

func (w *walk) up() {
	if n := len(w.stack); n > 0 {
		closeFD(w.stack[n-1])
		w.stack = w.stack[:n-1]
	}
}

func (w *walk) reset() {
	for len(w.stack) > 0 {
		w.up()
	}
}

func (w *walk) step(name string) error {
	switch name {
	case "", ".":
		return nil
	case "..":
		w.up()
		return nil
	}
	fd, err := openAt(w.here(), name)
	if errors.Is(err, unix.ENOENT) {
		fd, err = w.create(name)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer closeFD(fd)
		return w.follow(fd)
	}
	w.stack = append(w.stack, fd)
	return nil
}

// create makes name and opens it. Somebody else may have been faster; then what they made counts.
func (w *walk) create(name string) (int, error) {
	var err error
	if w.dir || len(w.rest) > 0 {
		err = unix.Mkdirat(w.here(), name, 0o755)
	} else {
		err = unix.Mknodat(w.here(), name, unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("%q is missing and can't be made: %w", name, err)
	}
	return openAt(w.here(), name)
}

// follow puts the text of the link fd before the rest of the path.
func (w *walk) follow(fd int) error {
	if w.links++; w.links > maxLinks || isProc(fd) {
		return unix.ELOOP
	}
	text, err := readLink(fd, "")
	if err != nil {
		return err
	}
	if strings.HasPrefix(text, "/") {
		w.reset()
	}
	w.rest = append(strings.Split(text, "/"), w.rest...)
	return nil
}

func readLink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// isProc tells whether fd lies on a procfs.
func isProc(fd int) bool { return fsType(fd) == unix.PROC_SUPER_MAGIC }

// fsType is the magic number of the file system that fd lies on, 0 if the kernel won't say.
func fsType(fd int) int64 {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0
	}
	return st.Type
}

// kind names what a file's mode says it is.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	}
	return "of unknown kind"
}

func isDir(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }
