package netsetuptest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a command may take before it is a failure. Emulated machines need more: a test binary
// may change it before its tests start.
var Patience = 20 * time.Second

// A Result is how a command ended.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int            // exit code; -1 if a signal ended it
	Signal         syscall.Signal // that signal, or 0
	Time           time.Duration
}

// Line is the standard output without its last newline.
func (r Result) Line() string { return strings.TrimSuffix(r.Stdout, "\n") }

// OK fails t unless the command exited with 0, and returns r.
func (r Result) OK(t testing.TB) Result {
	t.Helper()
	return r.Want(t, 0)
}

// Want fails t unless the command exited with code, and returns r.
func (r Result) Want(t testing.TB, code int) Result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("%s\nexit code %d (%v), want %d\nstdout: %s\nstderr: %s", strings.Join(r.Args, " "), r.Code, r.Signal, code, r.Stdout, r.Stderr)
	}
	return r
}

// Run runs a command on n to its end. It fails t only if that takes more than Patience, or can't be started.
func (n *Node) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return n.RunCmd(t, n.Command(args...))
}

// RunCmd is Run for a command that was prepared further.
func (n *Node) RunCmd(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	return n.Start(t, cmd).Wait(t)
}

// A Process is a command that runs on a node.
type Process struct {
	Cmd      *exec.Cmd
	out, err output
	began    time.Time
	done     chan struct{}
	waitErr  error
	end      time.Time
}

// output collects what a command writes and can be read while it does.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Start starts a command on n and kills it when t ends. Standard output and error are collected unless cmd has
// its own.
func (n *Node) Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, done: make(chan struct{}), began: time.Now()}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.err
	}
	// What outlives the command and holds its output open is reported as such, not waited for.
	cmd.WaitDelay = 3 * time.Second
	if err := n.DoInside(cmd.Start); err != nil {
		t.Fatalf("%s: start: %s: %v", n.Name, strings.Join(cmd.Args, " "), err)
	}
	go func() {
		p.waitErr = cmd.Wait()
		p.end = time.Now()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

// Stdout is what was written so far.
func (p *Process) Stdout() string { return p.out.String() }

// Stderr is what was written so far.
func (p *Process) Stderr() string { return p.err.String() }

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Process) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%s: signal %v: %v", p.Cmd.Args[0], sig, err)
	}
}

// Wait waits for the end.
func (p *Process) Wait(t testing.TB) Result {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		// A Go program answers with the stacks of its goroutines.
		_ = p.Cmd.Process.Signal(unix.SIGQUIT)
		time.Sleep(200 * time.Millisecond)
		_ = p.Cmd.Process.Kill()
		<-p.done
		t.Fatalf("%s\nstill running after %v\nstdout: %s\nstderr: %s", strings.Join(p.Cmd.Args, " "), Patience, p.Stdout(), p.Stderr())
	}
	if errors.Is(p.waitErr, exec.ErrWaitDelay) {
		t.Errorf("%s\nended, but something still holds its output open", strings.Join(p.Cmd.Args, " "))
	}
	return p.result()
}

func (p *Process) result() Result {
	r := Result{Args: p.Cmd.Args, Stdout: p.Stdout(), Stderr: p.Stderr(), Time: p.end.Sub(p.began), Code: p.Cmd.ProcessState.ExitCode()}
	if ws, ok := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Signal = ws.Signal()
	}
	return r
}

// AwaitOutput waits until the standard output holds text, and returns all of it.
func (p *Process) AwaitOutput(t testing.TB, text string) string {
	t.Helper()
	Poll(t, func() error {
		if strings.Contains(p.Stdout(), text) {
			return nil
		}
		select {
		case <-p.done:
			t.Fatalf("%s\nended without writing %q\nstdout: %s\nstderr: %s", strings.Join(p.Cmd.Args, " "), text, p.Stdout(), p.Stderr())
		default:
		}
		return errors.New(strings.Join(p.Cmd.Args, " ") + ": has not written " + text + ", but: " + p.Stdout() + p.Stderr())
	})
	return p.Stdout()
}
