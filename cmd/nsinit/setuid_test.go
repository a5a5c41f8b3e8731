package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A binary that somebody has made set-user-ID refuses to work: it would start
// containers with root's rights for everybody (CVE-2016-8659, CVE-2020-5291).
func TestSetUserID(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a set-user-ID file to somebody")
	}
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		t.Skipf("needs a TMPDIR that isn't mounted nosuid: %s is", dir)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nsinit")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	// Another user's set-user-ID file, run by root: the temporary directory needn't be open to anybody else.
	if err := errors.Join(os.Chown(path, 65534, -1), os.Chmod(path, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "version").CombinedOutput()
	for i := 0; errors.Is(err, unix.ETXTBSY) && i < 100; i++ { // a child of another test still holds the open file
		time.Sleep(10 * time.Millisecond)
		out, err = exec.Command(path, "version").CombinedOutput()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 || !strings.HasPrefix(string(out), "nsinit: set-user-ID: ") {
		t.Errorf("%v, %q", err, out)
	}
}
