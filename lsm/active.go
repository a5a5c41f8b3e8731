package lsm

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Module numbers, include/uapi/linux/lsm.h.
const (
	seLinux  module = 101
	appArmor module = 104
)

type module uint64

// active reports whether the running kernel has m switched on.
func active(m module) (bool, error) {
	on, err := listed(m)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // EPERM: a seccomp filter's answer to what it doesn't know
		return activeByFiles("/", m)
	}
	return on, err
}

// listed asks lsm_list_modules(2), Linux 6.8: no file system has to be mounted for it.
func listed(m module) (bool, error) {
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, e := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return false, fmt.Errorf("security modules: list: %w", e)
	}
	for _, id := range ids[:min(int(n), len(ids))] {
		if module(id) == m {
			return true, nil
		}
	}
	return false, nil
}

// activeByFiles asks sysfs and procfs below root, for older kernels. The attributes in /proc say nothing:
// they are there without any module.
func activeByFiles(root string, m module) (bool, error) {
	if m == appArmor {
		b, err := os.ReadFile(root + "sys/module/apparmor/parameters/enabled")
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return strings.TrimSpace(string(b)) == "Y", wrapFile(err)
	}
	// The kernel registers selinuxfs only if SELinux is on (security/selinux/selinuxfs.c).
	b, err := os.ReadFile(root + "proc/filesystems")
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == "selinuxfs" {
			return true, nil
		}
	}
	return false, wrapFile(err)
}

func wrapFile(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("security modules: %w", err)
}
