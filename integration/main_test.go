package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// The binaries under test, by absolute path.
var nsinitBin, gatesBin string

func TestMain(m *testing.M) {
	if os.Getenv("NSINIT_VM") != "" {
		netsetuptest.Patience = 2 * time.Minute // emulation is 10 to 20 times slower
	}
	leaveTmpfs()
	dir, err := os.MkdirTemp("", "nsinit-integration-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // programs of other users are found here
	}
	if err == nil {
		nsinitBin, err = testedBinary(dir, "NSINIT_BIN", "nsinit")
	}
	if err == nil {
		gatesBin, err = testedBinary(dir, "NSINIT_GATES_BIN", "nsinit-gates", "-tags=nsinit_gates")
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "integration:", err)
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// leaveTmpfs has rootfses made on a disk where /tmp is none: before 6.3 a tmpfs can't be ID-mapped.
func leaveTmpfs() {
	var st unix.Statfs_t
	if unix.Statfs(os.TempDir(), &st) == nil && st.Type == unix.TMPFS_MAGIC {
		const disk = "/var/tmp"
		if os.MkdirAll(disk, 0o777) == nil && unix.Statfs(disk, &st) == nil && st.Type != unix.TMPFS_MAGIC {
			_ = os.Setenv("TMPDIR", disk)
		}
	}
}

// long skips a test in the smoke run, where another shows the same for a kernel.
func long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: the full run shows it")
	}
}

// testedBinary is the one that env names, or else one that is built into dir.
func testedBinary(dir, env, name string, flags ...string) (string, error) {
	if path := os.Getenv(env); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, name)
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "github.com/nsinit/nsinit/cmd/nsinit")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}
