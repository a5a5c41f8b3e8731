package fs

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The lowest kernel that this package is built for and tested on. Its calls are older (mount_setattr and
// ID-mapped mounts are 5.12, overlays on ID-mapped layers 5.19); 6.1 is the oldest in support that has all.
const minMajor, minMinor = 6, 1

// CheckKernel refuses a kernel older than 6.1.
func CheckKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("kernel version: uname: %w", err)
	}
	return checkRelease(unix.ByteSliceToString(u.Release[:]))
}

func checkRelease(release string) error {
	major, minor, ok := parseRelease(release)
	if !ok {
		return fmt.Errorf("kernel version: %q: is not understood", release)
	}
	if major < minMajor || major == minMajor && minor < minMinor {
		return fmt.Errorf("kernel version: %s: is too old: Linux %d.%d or newer is needed", release, minMajor, minMinor)
	}
	return nil
}

// parseRelease reads the first two numbers of "6.1.0-49-amd64".
func parseRelease(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	second := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		second = rest[:i]
	}
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}
