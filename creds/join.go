package creds

import (
	"errors"
	"fmt"

	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

// AsUser runs f while the calling thread, which must be locked, sees the file system as u: with u's supplementary groups
// and file-system ids (setfsuid(2)), and so without root's rights over files unless u is root. The thread's ids are given back
// afterwards, its groups are not.
func AsUser(u User, f func() error) error {
	if err := setGroups(u.Groups); err != nil {
		return err
	}
	if u.UID == 0 && u.GID == 0 {
		return f()
	}
	if err := setFSIDs(u.UID, u.GID); err != nil {
		return errors.Join(err, setFSIDs(0, 0))
	}
	return errors.Join(f(), setFSIDs(0, 0))
}

// setFSIDs sets both ids and reads them back: the calls report nothing but the previous value. Groups first: leaving
// root takes the right away.
func setFSIDs(uid, gid uint32) error {
	const none = ^uintptr(0) // no valid id: only asks
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	gotUID, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, none, 0, 0)
	gotGID, _, _ := unix.RawSyscall(unix.SYS_SETFSGID, none, 0, 0)
	if uint32(gotUID) != uid || uint32(gotGID) != gid {
		return fmt.Errorf("set file-system ids %d:%d: the kernel has %d:%d", uid, gid, gotUID, gotGID)
	}
	return nil
}

// ClearInheritable empties the calling thread's inheritable and ambient sets, so that a child gets none of the
// caller's (CVE-2022-24769), and reads them back. The rest stays as it is.
func ClearInheritable() error {
	want, err := currentSets()
	if err != nil {
		return err
	}
	want.inheritable, want.ambient = 0, 0
	if err := apply(capability.CAPS|capability.AMBIENT, want); err != nil {
		return err
	}
	got, err := currentSets()
	if err != nil {
		return err
	}
	return want.compare(got)
}
