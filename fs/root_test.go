package fs

import (
	"os"
	"testing"
)

func TestRootfs(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := &Config{
		Root: newRootfs(t), Cgroup: true,
		MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths(),
		Files: []File{{Path: "/etc/hosts", Content: []byte("127.0.0.1 localhost\n")}},
	}
	mustBuild(t, c)
	data, _ := os.ReadFile("/proc/self/mountinfo")
	t.Logf("%s", data)
}

func TestOverlay(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := &Config{Cgroup: true, MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths(),
		Hidden: []string{"/etc/shadow", "/root", "/etc/ssh/ssh_host_*_key"},
		Files:  []File{{Path: "/etc/hosts", Content: []byte("127.0.0.1 localhost\n")}},
	}
	mustBuild(t, c)
	data, _ := os.ReadFile("/proc/self/mountinfo")
	t.Logf("%s", data)
}
