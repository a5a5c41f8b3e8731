package lsm

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const contextPath = "/sys/fs/selinux/context"

// ApplySELinux sets the label of the next exec of the calling thread, and of the keys that it makes.
// proc is a procfs that nobody else can reach, open at its root, in whose pid namespace the
// thread is; it stays the caller's. A label that the policy doesn't know, or no SELinux, is
// unix.EINVAL; a change that the policy forbids unix.EACCES.
func ApplySELinux(proc *os.File, label string) error {
	if label == "" {
		return nil
	}
	if err := checkLabel(label); err != nil {
		return fmt.Errorf("selinux: %w", err)
	}
	thread, err := threadDir(proc)
	if err != nil {
		return fmt.Errorf("selinux: label %.64q: %w", label, err)
	}
	for _, attr := range []string{"/attr/exec", "/attr/keycreate"} {
		if err := writeAttr(proc, thread+attr, label); err != nil {
			return explainSELinux(label, err)
		}
		got, err := readAttr(proc, thread+attr)
		if err != nil {
			return fmt.Errorf("selinux: label %.64q: read back: %w", label, err)
		}
		if !sameLabel(got, label) {
			return fmt.Errorf("selinux: label %.64q: written, but the kernel has %.64q; is a policy loaded?", label, got)
		}
	}
	return nil
}

// sameLabel leaves the level out: the kernel sorts categories and joins ranges.
func sameLabel(got, asked string) bool {
	g, a := strings.SplitN(got, ":", 4), strings.SplitN(asked, ":", 4)
	return len(g) == len(a) && len(g) >= 3 && g[0] == a[0] && g[1] == a[1] && g[2] == a[2]
}

func explainSELinux(label string, err error) error {
	switch {
	case errors.Is(err, unix.EINVAL):
		return noSELinux(label, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("selinux: label %.64q: the policy forbids the change: %w", label, err)
	}
	return fmt.Errorf("selinux: label %.64q: %w", label, err)
}

func noSELinux(label string, cause error) error {
	if cause != nil {
		return fmt.Errorf("selinux: label %.64q: SELinux is not active in this kernel, or its policy doesn't know the label; boot with selinux=1 and selinux in lsm=, or leave the label out: %w",
			label, cause)
	}
	return fmt.Errorf("label %.64q: SELinux is not active in this kernel; boot with selinux=1 and selinux in lsm=, or leave the label out", label)
}

// checkPolicy refuses a kernel without a policy: it takes every label without an error, and applies none.
// It shows in our own label, which is "kernel" then.
func checkPolicy(own, label string) error {
	b, err := os.ReadFile(own)
	if err != nil {
		return fmt.Errorf("label %.64q: our own label: %w", label, err)
	}
	if now := trimAttr(b); checkLabel(now) != nil {
		return fmt.Errorf("label %.64q: SELinux has no policy loaded (our own label is %.64q); load one, or leave the label out", label, now)
	}
	return nil
}

// checkKnown asks the policy through selinuxfs. Where that isn't mounted or ours to ask, the write
// of the label decides.
func checkKnown(path, label string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if _, err := f.WriteString(label); errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("label %.64q: the loaded policy doesn't know it: %w", label, unix.EINVAL)
	}
	return nil
}

// currentLabel is "" where there is no SELinux.
func currentLabel(proc *os.File, dir string) (string, error) {
	now, err := readAttr(proc, dir+"/attr/current")
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) && exists(proc, dir) {
		return "", nil
	}
	if checkLabel(now) != nil {
		return "", err // another module's, Smack's for example
	}
	return now, err
}
