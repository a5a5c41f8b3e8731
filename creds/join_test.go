package creds

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

func TestAsUserSeesAsUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o040); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(secret, 0, 77); err != nil {
		t.Fatal(err)
	}
	// The file is opened from its directory, which root of this test may have closed to others.
	at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	open := func() error {
		fd, err := unix.Openat(at, "secret", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := onDyingThread(func() error {
		if err := AsUser(User{UID: 1000, GID: 1000, Groups: []uint32{1000}}, open); !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("without the group: %w", err)
		}
		if err := AsUser(User{UID: 1000, GID: 1000, Groups: []uint32{1000, 77}}, open); err != nil {
			return fmt.Errorf("with the group: %w", err)
		}
		return open() // root again
	}); err != nil {
		t.Error(err)
	}
}

func TestClearInheritable(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if err := onDyingThread(func() error {
		before, err := currentSets()
		if err != nil {
			return err
		}
		with := before
		with.inheritable, with.ambient = 1<<capability.CAP_KILL, 1<<capability.CAP_KILL
		if err := apply(capability.CAPS|capability.AMBIENT, with); err != nil {
			return err
		}
		if err := ClearInheritable(); err != nil {
			return err
		}
		after, err := currentSets()
		before.inheritable, before.ambient = 0, 0
		if err == nil && after != before {
			err = fmt.Errorf("got %+v, want %+v", after, before)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
