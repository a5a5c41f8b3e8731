package lsm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadProfile loads a profile that allows everything but reading files named canary, and returns its name.
func loadProfile(t *testing.T, suffix string) string {
	t.Helper()
	if !isActive(t, appArmor) {
		t.Skip("needs AppArmor active: lsm=...,apparmor on the kernel's command line")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a profile")
	}
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("needs apparmor_parser, of Debian's package apparmor")
	}
	name := fmt.Sprintf("nsinit-lsm-test-%d-%s", os.Getpid(), suffix)
	text := fmt.Sprintf("profile \"%s\" flags=(attach_disconnected) {\n  file,\n  capability,\n  signal,\n  ptrace,\n  unix,\n  deny /**/canary r,\n}\n", name)
	feed := func(flag string) error {
		cmd := exec.Command(parser, "--skip-cache", flag)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apparmor_parser %s: %w: %s", flag, err, out)
		}
		return nil
	}
	if err := feed("--replace"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := feed("--remove"); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestAppArmorConfines(t *testing.T) {
	t.Parallel()
	for name, suffix := range map[string]string{"plain name": "a", "a name with a space": "b c"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profile := loadProfile(t, suffix)
			if err := (Config{AppArmor: profile}).Validate(); err != nil {
				t.Error(err)
			}
			for _, offMain := range []bool{false, true} {
				p := &plan{AppArmor: profile, OffMain: offMain, Exec: []string{"/bin/cat", "/proc/self/attr/apparmor/current"}}
				if out, err := p.do(t); err != nil || out != profile+" (enforce)" {
					t.Errorf("got %q, %v", out, err)
				}
			}
			canary := filepath.Join(t.TempDir(), "canary")
			if err := os.WriteFile(canary, []byte("seen"), 0o644); err != nil {
				t.Fatal(err)
			}
			p := &plan{AppArmor: profile, Exec: []string{"/bin/cat", canary}}
			if out, err := p.do(t); err == nil || !strings.Contains(out, "ermission denied") {
				t.Errorf("reading %s: got %q, %v", canary, out, err)
			}
			p.AppArmor = Unconfined
			if out, err := p.do(t); err != nil || out != "seen" {
				t.Errorf("unconfined: got %q, %v", out, err)
			}
		})
	}
}

func TestAppArmorCurrent(t *testing.T) {
	t.Parallel()
	profile := loadProfile(t, "current")
	proc := openProc(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{fmt.Sprintf(`%s={"AppArmor":%q,"Exec":["/bin/sleep","100"]}`, planVariable, profile)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	var got, label string
	for deadline := time.Now().Add(20 * time.Second); got != profile && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var err error
		if got, label, err = Current(proc, cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if got != profile || label != "" {
		t.Errorf("got profile %q, label %q", got, label)
	}
	if ours, _, err := Current(proc, os.Getpid()); err != nil || ours != Unconfined {
		t.Errorf("ourselves: got %q, %v", ours, err)
	}
}

func TestAppArmorRefusals(t *testing.T) {
	t.Parallel()
	profile := loadProfile(t, "refusals")
	missing := profile + "-missing"
	assertError(t, Config{AppArmor: missing}.Validate(), missing, "not loaded", "apparmor_parser -r")
	err := onDyingThread(func() error { return ApplyAppArmor(openProc(t), missing) })
	assertError(t, err, missing, "not loaded", "apparmor_parser -r")
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v is another errno", err)
	}
	// Another thread's attribute isn't ours to write.
	proc := openProc(t)
	if err := onDyingThread(func() error {
		return writeAttr(proc, fmt.Sprint(os.Getpid(), appArmorExec), "exec "+profile)
	}); !errors.Is(err, unix.EACCES) {
		t.Errorf("the main thread's attribute: got %v", err)
	}
	// From unconfined to a profile is a restriction, so no_new_privs allows it.
	p := &plan{AppArmor: profile, NoNewPrivs: true, Exec: []string{"/bin/cat", "/proc/self/attr/apparmor/current"}}
	if out, err := p.do(t); err != nil || out != profile+" (enforce)" {
		t.Errorf("with no_new_privs: got %q, %v", out, err)
	}
}
