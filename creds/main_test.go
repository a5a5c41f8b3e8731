package creds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A plan is what a child of the tests does to itself, in the order of the package, before it
// executes a program: none of it can be taken back.
type plan struct {
	Limits     []specs.POSIXRlimit
	Caps       *specs.LinuxCapabilities
	User       *User
	NoNewPrivs bool
	Keep       []int // descriptors
	CloseFDs   bool
	OffMain    bool // on a thread that isn't the main one
	Exec       []string

	kept []*os.File // so that no finalizer closes them
}

const planVariable = "NSINIT_CREDS_TEST_PLAN"

// The main goroutine keeps the main thread, so that no test changes it.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(planVariable)
	if !ok {
		os.Exit(m.Run())
	}
	var p plan
	err := json.Unmarshal([]byte(text), &p)
	if err == nil && p.OffMain {
		failed := make(chan error)
		go func() {
			runtime.LockOSThread()
			failed <- p.run()
		}()
		err = <-failed
	} else if err == nil {
		err = p.run()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(125)
}

func (p *plan) run() error {
	if err := p.steps(); err != nil {
		return err
	}
	return unix.Exec(p.Exec[0], p.Exec, []string{"PATH=/bin:/usr/bin"})
}

// steps is the package's order.
func (p *plan) steps() error {
	if err := SetRlimits(p.Limits); err != nil {
		return err
	}
	if p.Caps != nil {
		if err := DropBounding(p.Caps.Bounding); err != nil {
			return err
		}
	}
	if p.CloseFDs {
		if err := p.closeFDs(); err != nil {
			return err
		}
	}
	if p.User != nil {
		if err := SetUser(*p.User); err != nil {
			return err
		}
	}
	if p.Caps != nil {
		if err := SetCapabilities(p.Caps); err != nil {
			return err
		}
	}
	if p.NoNewPrivs {
		return SetNoNewPrivs()
	}
	return nil
}

func (p *plan) closeFDs() error {
	for _, fd := range p.Keep {
		p.kept = append(p.kept, os.NewFile(uintptr(fd), fmt.Sprint("kept ", fd)))
	}
	return CloseOnExec(p.kept...)
}

// command starts nothing yet.
func (p *plan) command(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{planVariable + "=" + string(text)}
	return cmd
}

// output is what the program printed.
func (p *plan) output(t *testing.T) string {
	t.Helper()
	cmd := p.command(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return string(out)
}

// status is /proc/self/status of the executed program.
func (p *plan) status(t *testing.T) map[string]string {
	t.Helper()
	p.Exec = []string{"/bin/cat", "/proc/self/status"}
	return parseStatus(p.output(t))
}

func parseStatus(text string) map[string]string {
	status := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	return status
}

func assertStatus(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s: got %q, want %q", key, got[key], value)
		}
	}
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

func needRoot(t *testing.T) {
	t.Helper()
	if syscall.Geteuid() != 0 {
		t.Skip("needs root: changes credentials")
	}
}

func mask(m capMask) string { return fmt.Sprintf("%016x", uint64(m)) }
