package ipam

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// After a reboot the leases of containers that nobody remembers are found, and no others.
func TestStale(t *testing.T) {
	dir := t.TempDir()
	boot := time.Now().Add(-time.Hour)
	for path, old := range map[string]bool{
		DefaultName + "/10.200.0.2": true, DefaultName + "/10.200.0.3": false, DefaultName + "/10.200.0.4": true,
		DefaultName + "/last_reserved_ip.0": true, "podman/10.88.0.2": true, DefaultPtP + "/fd00::2": true,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content := "dead\r\neth0"
		if filepath.Base(path) == "10.200.0.4" {
			content = "alive\r\neth0"
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if when := boot.Add(-time.Minute); old {
			if err := os.Chtimes(path, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	stale, err := staleIn(dir, boot, func(id string) bool { return id == "alive" })
	if err != nil || len(stale) != 2 {
		t.Fatalf("%v, %+v", err, stale)
	}
	for _, o := range stale {
		if err := Undo(o); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, o.Network, o.Name)); err == nil {
			t.Errorf("%s is still leased", o.Name)
		}
	}
	if now, err := BootTime(); err != nil || !now.Before(time.Now()) {
		t.Error(now, err)
	}
}
