package lsm

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const profilesPath = "/sys/kernel/security/apparmor/profiles"

// AppArmor's own attributes are in a directory of theirs since Linux 5.8, also beside another module.
const (
	appArmorExec    = "/attr/apparmor/exec"
	appArmorCurrent = "/attr/apparmor/current"
)

// ApplyAppArmor has the kernel change to the profile at the next exec of the calling thread.
// proc is a procfs that nobody else can reach, open at its root, in whose pid namespace the
// thread is; it stays the caller's. "unconfined" is nothing to do where there is no AppArmor, or no profile
// in force. A profile that isn't loaded is unix.ENOENT, a change that the present
// profile forbids unix.EACCES or unix.EPERM, no AppArmor unix.EINVAL.
func ApplyAppArmor(proc *os.File, profile string) error {
	if profile == "" {
		return nil
	}
	if err := checkProfile(profile); err != nil {
		return err
	}
	thread, err := threadDir(proc)
	if err != nil {
		return fmt.Errorf("apparmor: profile %.64q: %w", profile, err)
	}
	if profile == Unconfined {
		now, err := currentProfile(proc, thread)
		if err != nil {
			return fmt.Errorf("apparmor: %w", err)
		}
		if now == "" || now == Unconfined {
			return nil
		}
	}
	if err := writeAttr(proc, thread+appArmorExec, "exec "+profile); err != nil {
		return explainAppArmor(profile, err)
	}
	got, err := readAttr(proc, thread+appArmorExec)
	if err != nil {
		return fmt.Errorf("apparmor: profile %.64q: read back: %w", profile, err)
	}
	if !sameProfile(withoutMode(got), profile) {
		return fmt.Errorf("apparmor: profile %.64q: written, but the kernel has %.64q for the exec", profile, got)
	}
	return nil
}

// sameProfile compares plain names; of stacks and policy namespaces the kernel prints another form than it
// takes, so there only that something is set counts.
func sameProfile(got, asked string) bool {
	if strings.HasPrefix(asked, ":") || strings.Contains(asked, "//&") {
		return got != "" && got != Unconfined
	}
	return got == asked
}

func explainAppArmor(profile string, err error) error {
	switch {
	case errors.Is(err, unix.EINVAL):
		return noAppArmor(profile, err)
	case errors.Is(err, unix.ENOENT) && failedOpen(err):
		return noAppArmor(profile, err) // no attr/apparmor: not built into this kernel
	case errors.Is(err, unix.ENOENT):
		return notLoaded(profile, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("apparmor: profile %.64q: the profile that we run under, or no_new_privs, forbids the change: %w", profile, err)
	}
	return fmt.Errorf("apparmor: profile %.64q: %w", profile, err)
}

func failedOpen(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Op == "open"
}

// noAppArmor and notLoaded add cause, if there is one.
func noAppArmor(profile string, cause error) error {
	return because(cause, "apparmor: profile %.64q: AppArmor is not active in this kernel; boot with apparmor=1 and apparmor in lsm=, or say unconfined", profile)
}

func notLoaded(profile string, cause error) error {
	return because(cause, "apparmor: profile %.64q: not loaded; load it with apparmor_parser -r FILE, or say unconfined", profile)
}

func because(cause error, format, object string) error {
	if cause == nil {
		return fmt.Errorf(format, object)
	}
	return fmt.Errorf(format+": %w", object, cause)
}

// checkLoaded looks for profile in the kernel's list, lines of `NAME (MODE)`. Where the list can't
// be read, or names are taken apart by the kernel, the write decides.
func checkLoaded(list, profile string) error {
	if strings.HasPrefix(profile, ":") || strings.Contains(profile, "//&") {
		return nil
	}
	f, err := os.Open(list)
	if err != nil {
		return nil // securityfs isn't mounted everywhere
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if withoutMode(lines.Text()) == profile {
			return nil
		}
	}
	if lines.Err() != nil {
		return nil // EACCES comes with the first read in a confined process
	}
	return notLoaded(profile, nil)
}

// withoutMode cuts ` (enforce)` and the like off; a name may have spaces and parentheses itself.
func withoutMode(s string) string {
	if i := strings.LastIndex(s, " ("); i >= 0 && strings.HasSuffix(s, ")") {
		return s[:i]
	}
	return s
}

// currentProfile is "" where there is no AppArmor.
func currentProfile(proc *os.File, dir string) (string, error) {
	now, err := readAttr(proc, dir+appArmorCurrent)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) && exists(proc, dir) {
		return "", nil
	}
	return withoutMode(now), err
}

// exists tells a process that is gone from an attribute that isn't there.
func exists(proc *os.File, dir string) bool {
	f, err := openAttr(proc, dir, unix.O_PATH)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// Current returns what process pid, a number of proc's pid namespace, runs under: profile and label,
// "" where the kernel has none. A process that doesn't exist is unix.ENOENT or unix.ESRCH.
// proc stays the caller's.
func Current(proc *os.File, pid int) (profile, label string, err error) {
	dir := fmt.Sprint(pid)
	if profile, err = currentProfile(proc, dir); err != nil {
		return "", "", fmt.Errorf("apparmor: process %d: %w", pid, err)
	}
	if profile != "" {
		return profile, "", nil // attr/current is AppArmor's too then: it and SELinux exclude each other
	}
	if label, err = currentLabel(proc, dir); err != nil {
		return "", "", fmt.Errorf("selinux: process %d: %w", pid, err)
	}
	return "", label, nil
}
