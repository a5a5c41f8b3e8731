package fs

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The root of every procfs.
const procRootIno = 1

// coverableProc are the files below /proc that may be mounted on: what tools show to a container in the
// host's place. None of them is one that a runtime writes to.
func coverableProc() []string {
	return []string{
		"/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo", "/proc/stat",
		"/proc/swaps", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
	}
}

func mayCoverProc(name string) bool { return slices.Contains(coverableProc(), name) }

// checkProc refuses a mount on target if that lies on a procfs, by whatever name it was reached, unless it
// is one of the files that may be covered; on the root of a procfs only another procfs may go.
func (r *Root) checkProc(target int, procfs bool) error {
	if !isProc(target) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	if st.Ino == procRootIno {
		if procfs {
			return nil
		}
		return errors.New("only a procfs can be mounted on a procfs")
	}
	for _, name := range coverableProc() {
		var other unix.Stat_t
		err := unix.Fstatat(r.procDir, strings.TrimPrefix(name, "/proc/"), &other, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && other.Dev == st.Dev && other.Ino == st.Ino {
			return nil
		}
	}
	return errors.New("nothing may be mounted there: possible below /proc are " + strings.Join(coverableProc(), ", "))
}
