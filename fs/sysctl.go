package fs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteSysctl writes one sysctl through Proc. It refuses what CheckSysctl refuses. Whether it belongs to a
// namespace of the container's own, such as net.* where the network is the host's, is the caller's to know.
func (r *Root) WriteSysctl(key, value string) error {
	if err := CheckSysctl(key, value); err != nil {
		return err
	}
	resolve := uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS)
	fd, err := openAt2(r.procFD(), "sys/"+sysctlPath(key), unix.O_WRONLY, resolve)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("sysctl %s: this kernel or namespace has none of that name: %w", key, err)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", key, err)
	}
	defer closeFD(fd)
	n, err := unix.Write(fd, []byte(value)) // one write: it is all or nothing
	if err != nil {
		return fmt.Errorf("sysctl %s: write %q: %w", key, value, err)
	}
	if n != len(value) {
		return fmt.Errorf("sysctl %s: write %q: only %d bytes were taken", key, value, n)
	}
	return nil
}

// CheckSysctl refuses a key that isn't namespaced, which would be the host's, and a value that could hold
// more than one. Keys are written as sysctl(8) writes them: with dots, where a slash stands for a dot in a
// name ("net.ipv4.conf.eth0/100.forwarding" is of the device eth0.100), or the other way round.
func CheckSysctl(key, value string) error {
	name := sysctlPath(key)
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("sysctl: %q: is not the name of one", key)
		}
	}
	if strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune("\\=|;\"'`$", c) }) >= 0 {
		return fmt.Errorf("sysctl: %q: is not the name of one", key)
	}
	if !isNamespaced(name) {
		return fmt.Errorf("sysctl: %q: belongs to the whole host, not to a container; set it there", key)
	}
	if strings.IndexFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) >= 0 {
		return fmt.Errorf("sysctl %s: %q: has a control character", key, value)
	}
	return nil
}

// isNamespaced knows what belongs to the network, IPC and UTS namespaces (namespaces(7)).
func isNamespaced(name string) bool {
	ipc := []string{
		"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
		"kernel/shmmni", "kernel/shm_rmid_forced",
	}
	uts := []string{"kernel/hostname", "kernel/domainname"}
	return strings.HasPrefix(name, "net/") || strings.HasPrefix(name, "fs/mqueue/") ||
		slices.Contains(ipc, name) || slices.Contains(uts, name)
}

// sysctlPath is key as a path below /proc/sys: the first separator decides which one it uses.
func sysctlPath(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '/' {
		return key
	}
	return strings.Map(func(c rune) rune {
		switch c {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return c
	}, key)
}
