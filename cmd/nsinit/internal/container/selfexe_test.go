package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// The binary that runs as init is executable and can't be written, by either way of carrying it, whoever
// holds its descriptor.
func TestSelfCannotBeWritten(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for the overlay")
	}
	for _, overlay := range []bool{true, false} {
		t.Run(fmt.Sprintf("overlay=%v", overlay), func(t *testing.T) {
			tryOverlay = overlay
			defer func() { tryOverlay = true }()
			self, err := openSelf(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer self.Close()
			exe := self.exe
			if exe.Fd() < exeMinFD {
				t.Errorf("descriptor %d would be in the child's way", exe.Fd())
			}
			path := fmt.Sprintf("/proc/self/fd/%d", exe.Fd())
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				if _, err = w.Write([]byte("x")); err == nil {
					t.Error("the binary was written")
				}
				_ = w.Close()
			}
			if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
				t.Errorf("write: %v", err)
			}
			cmd := exec.Command("/proc/self/fd/3", "-test.run=^$")
			cmd.ExtraFiles = []*os.File{exe}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("execute: %v: %s", err, out)
			}
		})
	}
}
