package lsm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSELinuxOwnLabel(t *testing.T) {
	t.Parallel()
	if !isActive(t, seLinux) {
		t.Skip("needs SELinux active: lsm=...,selinux on the kernel's command line")
	}
	_, label, err := Current(openProc(t), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if label == "" {
		err := onDyingThread(func() error { return ApplySELinux(openProc(t), someLabel) })
		assertError(t, err, "selinux: label", "is a policy loaded?")
		assertError(t, Config{ProcessLabel: someLabel}.Validate(), "selinux: process label", "no policy loaded")
		assertError(t, Config{MountLabel: someLabel}.Validate(), "selinux: mount label", "no policy loaded")
		t.Skip("needs a policy loaded: without one no label can be set")
	}
	if err := (Config{ProcessLabel: label, MountLabel: label}).Validate(); err != nil {
		t.Error(err)
	}
	p := &plan{Label: label, Exec: []string{"/bin/cat", "/proc/self/attr/current"}}
	if out, err := p.do(t); err != nil || !sameLabel(out, label) {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	own := filepath.Join(t.TempDir(), "current")
	for text, want := range map[string]string{"system_u:system_r:init_t:s0\x00": "", "kernel\x00": "no policy loaded", "": "no policy loaded"} {
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := checkPolicy(own, someLabel); want == "" && err != nil || want != "" && err == nil {
			t.Errorf("%q: got %v", text, err)
		}
	}
	assertError(t, checkPolicy(own+"x", someLabel), "our own label")
}

func TestSameLabel(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]bool{
		someLabel:                                true,
		"system_u:system_r:container_t:s0:c2,c1": true, // the kernel sorts
		"system_u:system_r:container_t":          false,
		"system_u:system_r:other_t:s0:c1,c2":     false,
		"":                                       false,
	} {
		if sameLabel(got, someLabel) != want {
			t.Errorf("%q: not %v", got, want)
		}
	}
}
