package lsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const someLabel = "system_u:system_r:container_t:s0:c1,c2"

// A profile or label on a kernel that can't apply it is an error, on both sides.
func TestAskedWithoutAppArmor(t *testing.T) {
	t.Parallel()
	if isActive(t, appArmor) {
		t.Skip("needs a kernel without AppArmor")
	}
	assertError(t, Config{AppArmor: "x"}.Validate(), `apparmor: profile "x": AppArmor is not active`, "say unconfined")
	err := onDyingThread(func() error { return ApplyAppArmor(openProc(t), "x") })
	assertError(t, err, `apparmor: profile "x": AppArmor is not active`)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v is another errno", err)
	}
	if err := onDyingThread(func() error { return ApplyAppArmor(openProc(t), Unconfined) }); err != nil {
		t.Errorf("unconfined: %v", err)
	}
}

func TestAskedWithoutSELinux(t *testing.T) {
	t.Parallel()
	if isActive(t, seLinux) {
		t.Skip("needs a kernel without SELinux")
	}
	assertError(t, Config{ProcessLabel: someLabel}.Validate(), "selinux: process label: label", "SELinux is not active")
	assertError(t, Config{MountLabel: someLabel}.Validate(), "selinux: mount label: label", "SELinux is not active")
	err := onDyingThread(func() error { return ApplySELinux(openProc(t), someLabel) })
	assertError(t, err, "selinux: label", "SELinux is not active")
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v is another errno", err)
	}
}

func TestCurrentWithoutModules(t *testing.T) {
	t.Parallel()
	proc := openProc(t)
	profile, label, err := Current(proc, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !isActive(t, appArmor) && profile != "" || !isActive(t, seLinux) && label != "" {
		t.Errorf("got profile %q, label %q", profile, label)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		_, _, err := Current(proc, pid)
		assertError(t, err, fmt.Sprintf("process %d", pid))
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
			t.Errorf("%d: %v is another errno", pid, err)
		}
	}
}

func TestThreadDir(t *testing.T) {
	t.Parallel()
	if err := onDyingThread(func() error {
		dir, err := threadDir(openProc(t))
		if want := fmt.Sprintf("%d/task/%d", os.Getpid(), unix.Gettid()); err == nil && dir != want {
			err = fmt.Errorf("got %s, want %s", dir, want)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// What isn't the kernel's own procfs gets no profile written into it.
func TestFakeProc(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	attr := filepath.Join(dir, "1/task/1/attr/apparmor")
	if err := os.MkdirAll(attr, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{attr + "/exec", attr + "/../exec", attr + "/../keycreate"} {
		if err := os.WriteFile(f, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("1/task/1", filepath.Join(dir, "thread-self")); err != nil {
		t.Fatal(err)
	}
	fake, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	assertError(t, ApplyAppArmor(fake, "x"), "not a procfs")
	assertError(t, ApplySELinux(fake, someLabel), "not a procfs")
	_, _, err = Current(fake, 1)
	assertError(t, err, "not a procfs")
	assertError(t, ApplyAppArmor(nil, "x"), "no procfs")
	if err := os.Remove(filepath.Join(dir, "thread-self")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../etc", filepath.Join(dir, "thread-self")); err != nil {
		t.Fatal(err)
	}
	assertError(t, ApplyAppArmor(fake, "x"), "which is no thread")
}

// A file mounted over an attribute takes the write without an error (CVE-2019-16884): it must not.
func TestMountOverAttribute(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts in a namespace of its own")
	}
	decoy := filepath.Join(t.TempDir(), "decoy")
	if err := os.WriteFile(decoy, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	proc := openProc(t)
	var appArmorErr, seLinuxErr error
	if err := onDyingThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		ours, err := os.Open("/proc") // of this mount namespace
		if err != nil {
			return err
		}
		defer ours.Close()
		dir, err := threadDir(ours)
		if err != nil {
			return err
		}
		for _, attr := range []string{"/attr/exec", "/attr/apparmor/exec"} {
			if err := unix.Mount(decoy, "/proc/"+dir+attr, "", unix.MS_BIND, ""); err != nil && err != unix.ENOENT {
				return err
			}
		}
		appArmorErr, seLinuxErr = ApplyAppArmor(ours, "x"), ApplySELinux(ours, someLabel)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	assertError(t, seLinuxErr, "selinux: label", "cross-device")
	if _, err := openAttr(proc, "self/attr", unix.O_PATH); err == nil {
		t.Error("a link is followed")
	}
	if appArmorErr == nil || !strings.Contains(appArmorErr.Error(), "cross-device") && isActive(t, appArmor) {
		t.Errorf("apparmor: got %v", appArmorErr)
	}
	if b, err := os.ReadFile(decoy); err != nil || len(b) > 0 {
		t.Errorf("%q was written into the decoy, %v", b, err)
	}
}
