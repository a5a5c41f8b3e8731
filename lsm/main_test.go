package lsm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A plan is what a child of the tests does to itself before it executes a program.
type plan struct {
	AppArmor, Label string
	NoNewPrivs      bool
	OffMain         bool // on a thread that isn't the main one
	Exec            []string
}

const planVariable = "NSINIT_LSM_TEST_PLAN"

// The main goroutine keeps the main thread.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(planVariable)
	if !ok {
		os.Exit(m.Run())
	}
	var p plan
	err := json.Unmarshal([]byte(text), &p)
	switch {
	case err != nil:
	case p.OffMain:
		err = onDyingThread(p.run)
	default:
		err = p.run()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(125)
}

func (p *plan) run() error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if err := ApplyAppArmor(proc, p.AppArmor); err != nil {
		return err
	}
	if err := ApplySELinux(proc, p.Label); err != nil {
		return err
	}
	return unix.Exec(p.Exec[0], p.Exec, []string{"PATH=/bin:/usr/bin"})
}

// do returns what the program, or the failure, printed.
func (p *plan) do(t *testing.T) (string, error) {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{planVariable + "=" + string(text)}
	out, err := cmd.CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// onDyingThread is for what can't be taken back, where no exec is needed.
func onDyingThread(do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		result <- do()
	}()
	return <-result
}

func openProc(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	proc := os.NewFile(uintptr(fd), "/proc")
	t.Cleanup(func() { proc.Close() })
	return proc
}

func isActive(t *testing.T, m module) bool {
	t.Helper()
	on, err := active(m)
	if err != nil {
		t.Fatal(err)
	}
	return on
}

func assertError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", parts)
		return
	}
	text := err.Error()
	if strings.ContainsAny(text, "\n\x00\x1b") || len(text) > 400 {
		t.Errorf("%q is no short line", text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q lacks %q", text, part)
		}
	}
}
