package netsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` looks (iproute2: NETNS_RUN_DIR).
const netnsDir = "/run/netns"

// CheckNetNSName says why name can't be a name for `ip netns`; nil if it can. The
// error is a reason without the name.
func CheckNetNSName(name string) error {
	switch {
	case name == "":
		return errors.New("empty; 1 to 255 bytes")
	case len(name) > unix.NAME_MAX:
		return fmt.Errorf("%d bytes; a file's name has at most %d", len(name), unix.NAME_MAX)
	case name == "." || name == "..":
		return errors.New("no name for a file")
	case name[0] == '-':
		return errors.New("reads like a flag; start it with a letter")
	}
	return checkRunes(name, "/")
}

// BindName makes n available to `ip netns` under /run/netns/name. The object is
// recorded first, and Undo takes the name back. A name that is taken is
// fs.ErrExist.
func (n *NetNS) BindName(name, owner string, record Recorder) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("name %.64q for ip netns: %w", name, err)
		}
	}()
	if err := CheckNetNSName(name); err != nil {
		return err
	}
	ino, err := n.id()
	if err != nil {
		return err
	}
	unlock, err := lockNames()
	if err != nil {
		return err
	}
	defer unlock()
	path := netnsDir + "/" + name
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist // before the record, which must not claim another's name
	}
	// The inode tells Undo whether it finds this namespace or a later one of the name.
	o := Object{Kind: "netns-name", Name: name, Owner: owner, Was: strconv.FormatUint(ino, 10)}
	if err := record(o); err != nil {
		return err
	}
	if err := sharePropagation(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := bindNamespace(n.fd(), path); err != nil {
		_ = unix.Unlink(path)
		return err
	}
	return nil
}

// bindNamespace mounts the namespace itself at path.
func bindNamespace(fd int, path string) error {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("bind to %s: %w", path, err)
	}
	return nil
}

// lockNames takes the lock that ip netns takes while it makes the directory a
// mount point.
func lockNames() (unlock func(), err error) { return lockDir(netnsDir, 0o755) }

// lockDir makes the directory if it is missing and locks it.
func lockDir(path string, mode os.FileMode) (unlock func(), err error) {
	if err := os.MkdirAll(path, mode); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = dir.Close() }, nil
}

// sharePropagation makes the directory a shared mount, as ip netns does, so that a
// name that is unbound in one mount namespace is in all of them.
func sharePropagation() error {
	err := unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return wrapShare(err)
	}
	// EINVAL: it is no mount point yet.
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return wrapShare(err)
	}
	return wrapShare(unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, ""))
}

func wrapShare(err error) error {
	if err != nil {
		return fmt.Errorf("%s: make a shared mount: %w", netnsDir, err)
	}
	return nil
}

// undoName takes a name back if it still is the recorded namespace's, or the empty
// file of a BindName that was killed before it could bind.
func undoName(o Object) error {
	if err := CheckNetNSName(o.Name); err != nil {
		return fmt.Errorf("netns name %.64q: %w", o.Name, err)
	}
	if _, err := os.Lstat(netnsDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockNames()
	if err != nil {
		return err
	}
	defer unlock()
	path := netnsDir + "/" + o.Name
	mounted, ours, err := nameState(path, o.Was)
	if err != nil || !ours {
		return err
	}
	if mounted {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("netns name %s: unmount: %w", o.Name, err)
		}
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("netns name %s: remove: %w", o.Name, err)
	}
	return nil
}

// nameState says what lies at path: a bound namespace, and whether it is the one
// with the inode was, or the empty file that BindName makes.
func nameState(path, was string) (mounted, ours bool, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, false, fmt.Errorf("%s: %w", path, err)
	}
	if err := checkNsfs(fd); err == nil {
		return true, strconv.FormatUint(st.Ino, 10) == strings.TrimSpace(was), nil
	} else if !errors.Is(err, errNotNsfs) {
		return false, false, fmt.Errorf("%s: %w", path, err)
	}
	empty := st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 && st.Mode&0o7777 == 0
	return false, empty, nil
}
