package creds

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

// ulimits are docker's names; RLIMIT_ and capitals make the name of the OCI specification.
func ulimits() []string {
	return []string{
		"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
		"rss", "rtprio", "rttime", "sigpending", "stack",
	}
}

// rlimitNumber finds the kernel's number of an OCI type; the numbers differ between architectures.
func rlimitNumber(kind string) (int, bool) {
	switch kind {
	case "RLIMIT_AS":
		return unix.RLIMIT_AS, true
	case "RLIMIT_CORE":
		return unix.RLIMIT_CORE, true
	case "RLIMIT_CPU":
		return unix.RLIMIT_CPU, true
	case "RLIMIT_DATA":
		return unix.RLIMIT_DATA, true
	case "RLIMIT_FSIZE":
		return unix.RLIMIT_FSIZE, true
	case "RLIMIT_LOCKS":
		return unix.RLIMIT_LOCKS, true
	case "RLIMIT_MEMLOCK":
		return unix.RLIMIT_MEMLOCK, true
	case "RLIMIT_MSGQUEUE":
		return unix.RLIMIT_MSGQUEUE, true
	case "RLIMIT_NICE":
		return unix.RLIMIT_NICE, true
	case "RLIMIT_NOFILE":
		return unix.RLIMIT_NOFILE, true
	case "RLIMIT_NPROC":
		return unix.RLIMIT_NPROC, true
	case "RLIMIT_RSS":
		return unix.RLIMIT_RSS, true
	case "RLIMIT_RTPRIO":
		return unix.RLIMIT_RTPRIO, true
	case "RLIMIT_RTTIME":
		return unix.RLIMIT_RTTIME, true
	case "RLIMIT_SIGPENDING":
		return unix.RLIMIT_SIGPENDING, true
	case "RLIMIT_STACK":
		return unix.RLIMIT_STACK, true
	}
	return 0, false
}

// ParseUlimit parses `--ulimit NAME=SOFT[:HARD]`: docker's names, numbers in the kernel's units (bytes,
// seconds, files, ...), -1 or unlimited for no limit. Without HARD it is SOFT. Nothing is asked
// of the kernel: CheckRlimits does.
func ParseUlimit(s string) (specs.POSIXRlimit, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return specs.POSIXRlimit{}, fmt.Errorf("ulimit: %.64q: has no value; the form is NAME=SOFT[:HARD]", s)
	}
	limit := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name)}
	if _, known := rlimitNumber(limit.Type); !known || strings.ToLower(name) != name {
		return specs.POSIXRlimit{}, fmt.Errorf("ulimit: %.64q: %.64q is unknown; the nearest is %s", s, name, nearest(strings.ToLower(name), ulimits()))
	}
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	var softOK, hardOK bool
	limit.Soft, softOK = parseLimit(soft)
	limit.Hard, hardOK = parseLimit(hard)
	if !softOK || !hardOK {
		return specs.POSIXRlimit{}, fmt.Errorf("ulimit: %.64q: a limit is a decimal number below 2^64, -1 or unlimited; the form is NAME=SOFT[:HARD]", s)
	}
	if err := checkRlimit(limit); err != nil {
		return specs.POSIXRlimit{}, fmt.Errorf("ulimit: %.64q: %w", s, err)
	}
	return limit, nil
}

func parseLimit(s string) (uint64, bool) {
	if s == "-1" || s == "unlimited" {
		return unix.RLIM_INFINITY, true
	}
	if !allDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

func checkRlimit(l specs.POSIXRlimit) error {
	if _, ok := rlimitNumber(l.Type); !ok {
		return fmt.Errorf("rlimit: %.64q: unknown; the nearest is RLIMIT_%s", l.Type,
			strings.ToUpper(nearest(strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_")), ulimits())))
	}
	if l.Soft > l.Hard {
		return fmt.Errorf("rlimit: %s: soft limit %s is above hard limit %s; lower it, or raise the other", l.Type, limitText(l.Soft), limitText(l.Hard))
	}
	return nil
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// CheckRlimits checks limits against each other and against the running kernel: types, soft above
// hard, a type given twice, RLIMIT_NOFILE above fs.nr_open, a hard limit above our own without CAP_SYS_RESOURCE.
// It changes nothing. In a new user namespace CAP_SYS_RESOURCE doesn't count, which SetRlimits finds.
func CheckRlimits(limits []specs.POSIXRlimit) error {
	for i, l := range limits {
		if err := checkRlimit(l); err != nil {
			return err
		}
		for _, other := range limits[:i] {
			if other.Type == l.Type {
				return fmt.Errorf("rlimit: %s: given twice, as %s:%s and %s:%s", l.Type,
					limitText(other.Soft), limitText(other.Hard), limitText(l.Soft), limitText(l.Hard))
			}
		}
		if err := rlimitRefused(l); err != nil {
			return err
		}
	}
	return nil
}

// rlimitRefused says why the kernel will refuse, or has refused, l with EPERM (setrlimit(2)); nil if nothing
// speaks against it.
func rlimitRefused(l specs.POSIXRlimit) error {
	if most, ok := nrOpen(l); ok && l.Hard > most {
		return fmt.Errorf("rlimit: %s: hard limit %s is above the kernel's fs.nr_open of %d; lower it, or raise the sysctl", l.Type, limitText(l.Hard), most)
	}
	number, _ := rlimitNumber(l.Type)
	var now unix.Rlimit
	if err := unix.Getrlimit(number, &now); err != nil {
		return fmt.Errorf("rlimit: %s: read our own: %w", l.Type, err)
	}
	if l.Hard <= now.Max {
		return nil
	}
	sets, err := threadSets()
	if err != nil {
		return err
	}
	if sets.effective.has(capability.CAP_SYS_RESOURCE) {
		return nil
	}
	return fmt.Errorf("rlimit: %s: hard limit %s is above our own of %s, which takes CAP_SYS_RESOURCE; lower it, or start nsinit with a higher one",
		l.Type, limitText(l.Hard), limitText(now.Max))
}

// nrOpen reads the sysctl that is the most for l; not where it has none, or /proc isn't there.
func nrOpen(l specs.POSIXRlimit) (uint64, bool) {
	if l.Type != "RLIMIT_NOFILE" {
		return 0, false
	}
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// SetRlimits sets the limits of the process and reads them back.
//
// RLIMIT_NOFILE needs care in Go: its runtime raises the soft limit at start, and syscall.Exec (and
// starting a process) puts back the one that it found, but not after syscall.Setrlimit, which is
// used here. So the program gets what is asked for, else what our caller had.
func SetRlimits(limits []specs.POSIXRlimit) error {
	for _, l := range limits {
		if err := checkRlimit(l); err != nil {
			return err
		}
		if err := setRlimit(l); err != nil {
			return err
		}
	}
	return nil
}

func setRlimit(l specs.POSIXRlimit) error {
	number, _ := rlimitNumber(l.Type)
	want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
	if err := unix.Setrlimit(number, &want); err != nil {
		if why := rlimitRefused(l); why != nil {
			return fmt.Errorf("%w: %w", why, err)
		}
		return fmt.Errorf("rlimit: %s: set %s:%s: %w", l.Type, limitText(l.Soft), limitText(l.Hard), err)
	}
	var got unix.Rlimit
	if err := unix.Getrlimit(number, &got); err != nil {
		return fmt.Errorf("rlimit: %s: read back: %w", l.Type, err)
	}
	if got != want {
		return fmt.Errorf("rlimit: %s: set %s:%s, but the kernel has %s:%s", l.Type,
			limitText(l.Soft), limitText(l.Hard), limitText(got.Cur), limitText(got.Max))
	}
	return nil
}
