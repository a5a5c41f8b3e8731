package lsm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNothingAsked(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{AppArmor: Unconfined}).Validate(); err != nil {
		t.Error(err)
	}
	if err := ApplyAppArmor(nil, ""); err != nil {
		t.Error(err)
	}
	if err := ApplySELinux(nil, ""); err != nil {
		t.Error(err)
	}
}

func TestProfileNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"x", "docker-default", "/usr/bin/man", "a b", "a//b", "a//&b", ":ns:name", "grün", "x (y)", Unconfined} {
		if err := checkProfile(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"\vx": "a space", "x\n": "a space", "x\ty": `control character '\t'`, "x\x00y": `control character '\x00'`,
		"x\x1b[0m": "control character", "\xff": "not UTF-8", strings.Repeat("x", 5000): "longer than",
	} {
		assertError(t, checkProfile(bad), "apparmor: profile", want)
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"user_u:role_r:type_t", "system_u:system_r:container_t:s0", "system_u:system_r:container_t:s0:c1,c2",
		"u:r:t:s0-s15:c0.c1023",
	} {
		if err := checkLabel(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"x": "the form is user:role:type[:level]", "a:b": "the form is", ":b:c": "its user is empty", "a::c": "its role is empty",
		"a:b:": "its type is empty", "a:b:c:": "its level is empty", "a:b:c d": "has a space", "a:b:c\n": "control character",
		"a:b:\x00c": "control character", "a:b:\xff": "not UTF-8", strings.Repeat("x:", 3000): "longer than",
		"type:container_t": "the form is",
	} {
		assertError(t, checkLabel(bad), "label", want)
		assertError(t, Config{ProcessLabel: bad}.Validate(), "selinux: process label", want)
		assertError(t, Config{MountLabel: bad}.Validate(), "selinux: mount label", want)
		assertError(t, ApplySELinux(nil, bad), "selinux: label", want)
	}
}

func FuzzValidate(f *testing.F) {
	f.Add("docker-default", "a:b:c:s0", "a:b:c")
	f.Add("\x00", ":::", "a\nb:c:d")
	f.Fuzz(func(t *testing.T, profile, process, mount string) {
		for _, err := range []error{(Config{profile, process, mount}).Validate(), checkProfile(profile), checkLabel(process), checkLabel(mount)} {
			if err != nil && strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("%q is no line", err)
			}
		}
	})
}

func TestActiveByFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/"
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(m module, want bool) {
		t.Helper()
		if got, err := activeByFiles(root, m); err != nil || got != want {
			t.Errorf("module %d: got %v, %v, want %v", m, got, err, want)
		}
	}
	expect(appArmor, false)
	write("sys/module/apparmor/parameters/enabled", "N\n")
	expect(appArmor, false)
	write("sys/module/apparmor/parameters/enabled", "Y\n")
	expect(appArmor, true)

	_, err := activeByFiles(root, seLinux)
	assertError(t, err, "security modules")
	write("proc/filesystems", "nodev\tsysfs\n\text4\n")
	expect(seLinux, false)
	write("proc/filesystems", "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n")
	expect(seLinux, true)
}

// What older kernels are asked must say the same where both can be asked.
func TestBothWaysToAskAgree(t *testing.T) {
	t.Parallel()
	for _, m := range []module{appArmor, seLinux} {
		byCall, err := listed(m)
		if err != nil {
			t.Skipf("needs lsm_list_modules, Linux 6.8: %v", err)
		}
		byFiles, err := activeByFiles("/", m)
		if err != nil || byFiles != byCall {
			t.Errorf("module %d: the call says %v, the files %v, %v", m, byCall, byFiles, err)
		}
	}
}

func TestCheckLoaded(t *testing.T) {
	t.Parallel()
	list := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(list, []byte("docker-default (enforce)\n/usr/bin/man (complain)\na b (enforce)\nx (y) (kill)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, loaded := range []string{"docker-default", "/usr/bin/man", "a b", "x (y)", "a//&b", ":ns:a"} {
		if err := checkLoaded(list, loaded); err != nil {
			t.Errorf("%q: %v", loaded, err)
		}
	}
	for _, missing := range []string{"docker", "docker-default (enforce)", "a", "x", "man"} {
		assertError(t, checkLoaded(list, missing), "not loaded", "apparmor_parser -r")
	}
	if err := checkLoaded(list+"x", "anything"); err != nil {
		t.Errorf("without a list: %v", err)
	}
}
