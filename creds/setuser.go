package creds

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetUser sets supplementary groups, gid and uid (real, effective, saved) of the calling thread, and
// reads them back. Permitted capabilities are kept, effective ones are lost if uid isn't 0:
// SetCapabilities follows. Groups are set as they are given, in any order; LookupUser has put
// the primary group among them.
//
// The kernel clears the parent-death signal and dumpable here (prctl(2)).
func SetUser(u User) error {
	if u.UID > maxID || u.GID > maxID {
		return fmt.Errorf("user: %d:%d: outside 0..4294967294", u.UID, u.GID)
	}
	// Without it, leaving uid 0 clears the permitted set. An exec clears the flag.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("user: keep capabilities: %w", err)
	}
	if err := setGroups(u.Groups); err != nil {
		return err
	}
	if err := setID("gid", unix.SYS_SETRESGID, unix.SYS_GETRESGID, u.GID); err != nil {
		return err
	}
	if err := setID("uid", unix.SYS_SETRESUID, unix.SYS_GETRESUID, u.UID); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("user: stop keeping capabilities: %w", err)
	}
	return nil
}

// distinct sorts, as the kernel does with groups.
func distinct(ids []uint32) []uint32 {
	slices.Sort(ids)
	return slices.Compact(ids)
}

// setGroups sets the groups, in any order, and reads them back.
func setGroups(groups []uint32) error {
	groups = distinct(slices.Clone(groups))
	if len(groups) > maxGroups {
		return fmt.Errorf("groups: %d: more than %d", len(groups), maxGroups)
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	switch {
	case e == unix.EPERM:
		return fmt.Errorf("groups: %v: setgroups: %w: CAP_SETGID is missing, or the user namespace denies it (user_namespaces(7))", few(groups), e)
	case e == unix.EINVAL:
		return fmt.Errorf("groups: %v: setgroups: %w: one of them has no mapping in the user namespace", few(groups), e)
	case e != 0:
		return fmt.Errorf("groups: %v: setgroups: %w", few(groups), e)
	}
	got := make([]uint32, len(groups)+1)
	n, _, e := unix.RawSyscall(unix.SYS_GETGROUPS, uintptr(len(got)), uintptr(unsafe.Pointer(unsafe.SliceData(got))), 0)
	if e != 0 {
		return fmt.Errorf("groups: getgroups: %w", e)
	}
	if got := distinct(got[:n]); !slices.Equal(got, groups) {
		return fmt.Errorf("groups: %v: set, but the kernel has %v", few(groups), few(got))
	}
	return nil
}

// few shortens a list that is printed.
func few(ids []uint32) []uint32 { return ids[:min(len(ids), 8)] }

// setID sets real, effective and saved id by the call set, and reads them back by the call get.
func setID(what string, set, get uintptr, id uint32) error {
	_, _, e := unix.RawSyscall(set, uintptr(id), uintptr(id), uintptr(id))
	switch {
	case e == unix.EINVAL:
		return fmt.Errorf("%s: %d: %w: it has no mapping in the user namespace", what, id, e)
	case e != 0:
		return fmt.Errorf("%s: %d: %w", what, id, e)
	}
	var r, eff, s uint32
	if _, _, e := unix.RawSyscall(get, uintptr(unsafe.Pointer(&r)), uintptr(unsafe.Pointer(&eff)), uintptr(unsafe.Pointer(&s))); e != 0 {
		return fmt.Errorf("%s: read back: %w", what, e)
	}
	if r != id || eff != id || s != id {
		return fmt.Errorf("%s: %d: set, but the kernel has real %d, effective %d, saved %d", what, id, r, eff, s)
	}
	return nil
}

// SetNoNewPrivs sets no_new_privs of the calling thread and reads it back: no exec gains privileges any
// more, by set-id bits or file capabilities. It can't be unset.
func SetNoNewPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("no_new_privs: read back: %w", err)
	}
	if on != 1 {
		return errorString("no_new_privs: set, but the kernel doesn't have it")
	}
	return nil
}
