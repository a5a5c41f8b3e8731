// Package inside is the init: the process that the host side clones into new
// namespaces. It reads what it needs from the sync pipe, makes itself the
// container step by step, and executes the program.
//
// The package enters from its own initialisation when it finds itself called as
// the init, before the packages that only the host side needs are initialised: a
// start pays for two Go programs, and this keeps the second one small. So it
// must import little, and nothing with work at package level.
package inside

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/step"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

const (
	// Argv0 is what the host side calls the init by.
	Argv0 = "nsinit: init"
	// reaperArgv0 is what the init calls itself by when it stays as PID 1.
	reaperArgv0 = "nsinit: reaper"
	// SyncFD is where the init finds its end of the sync pipe.
	SyncFD = 3
)

func init() {
	if len(os.Args) == 0 {
		return
	}
	// The init must stay on the main thread: the parent-death signal belongs to it. Init functions are run there
	// (runtime.LockOSThread), and to lock it once more would only cost another thread.
	switch os.Args[0] {
	case Argv0:
		os.Exit(enter())
	case reaperArgv0:
		os.Exit(reap(os.Args[1:]))
	}
}

// process is the init while it becomes the container.
type process struct {
	conn    *wire.Conn
	start   wire.Start
	root    *os.File         // prepared by the host side, or nil
	procfs  *os.File         // the container's, mounted nowhere
	network *netsetup.Inside // until it has settled; nil: there is none
	pty     *fs.Pty
	tree    *fs.Root
	user    creds.User
	path    string   // the program, found on PATH
	env     []string // the program's environment
}

// steps is what the init does, in order. A failed init dies and its namespaces with it, so that
// nothing here is ever undone.
var steps = []step.Step[*process]{
	{Name: "context", Do: (*process).readContext},
	{Name: "environment", Do: (*process).loadEnvironment},
	{Name: "console", Do: (*process).takeConsole, When: (*process).hasTerminal},
	{Name: "session", Do: (*process).startSession},
	{Name: "network", Do: (*process).configureNetwork},
	{Name: "propagation", Do: (*process).makePrivate},
	{Name: "rootfs", Do: (*process).openRoot},
	{Name: "mounts", Do: (*process).mountSystem},
	{Name: "volumes", Do: (*process).mountUser},
	{Name: "files", Do: (*process).writeFiles},
	{Name: "pivot", Do: (*process).pivot},
	{Name: "hostname", Do: (*process).setHostname},
	{Name: "sysctls", Do: (*process).writeSysctls},
	{Name: "restrict", Do: (*process).restrict},
	{Name: "readonly", Do: (*process).setReadonly},
	{Name: "user", Do: (*process).lookUpUser},
	{Name: "apparmor", Do: (*process).applyAppArmor}, // judged at exec, written while we still may
	{Name: "selinux", Do: (*process).applySELinux},
	{Name: "rlimits", Do: (*process).setRlimits},    // before credentials: a lesser user can't raise them; after the last file is opened
	{Name: "bounding", Do: (*process).dropBounding}, // needs CAP_SETPCAP
	{Name: "descriptors", Do: (*process).closeOnExec},
	{Name: "credentials", Do: (*process).setUser}, // groups, gid, uid
	{Name: "cwd", Do: (*process).changeDir},       // as the user, with the capabilities of root still at hand only if it is root
	{Name: "program", Do: (*process).findProgram},
	{Name: "capabilities", Do: (*process).setCapabilities},
	{Name: "no-new-privs", Do: (*process).setNoNewPrivs},
	// seccomp belongs here: after no_new_privs, which lets an unprivileged thread load a filter, and
	// before nothing but the exec, so that the filter need not allow what the init does.
	{Name: "exec", Do: (*process).exec},
}

// StepNames returns the names of the init's steps in order.
func StepNames() []string { return step.Names(steps) }

// enter runs the list. It comes back only if a step failed.
func enter() int {
	debug.SetGCPercent(-1) // a start never needs a collection
	gate.Open()
	// Nobody of the container may look into this process: it holds the host's descriptors (CVE-2016-9962).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 125
	}
	p := &process{conn: wire.NewConn(SyncFD)}
	unix.CloseOnExec(SyncFD)
	err := step.Run("init", steps, p, p.trace)
	if err == nil || errors.Is(err, errParentDied) {
		return 125
	}
	f := failure(err)
	_ = p.conn.Send(wire.Failed, f)
	return f.Code
}

func (p *process) trace(name string, took time.Duration) {
	if p.start.Trace {
		_ = p.conn.Send(wire.Trace, wire.Traced{Step: name, Took: took})
	}
}

// failure is what the host side is told of err.
func failure(err error) wire.Failure {
	f := wire.Failure{Text: err.Error(), Code: 125}
	if se, ok := errors.AsType[*step.Error](err); ok {
		f.Step, f.Text = se.Step, se.Err.Error()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		f.Errno = int(errno)
	}
	if pe, ok := errors.AsType[*program.Error](err); ok {
		f.Code = pe.Code
	}
	return f
}

var errParentDied = errors.New("the host side ended before it released the init")

// readContext waits for the host side. Only a whole "go" releases the init: an end of file
// says that the parent died.
func (p *process) readContext() error {
	f, err := p.conn.Receive()
	if errors.Is(err, io.EOF) {
		return errParentDied
	}
	if err != nil {
		return err
	}
	if f.Type != wire.Go {
		return fmt.Errorf("sync pipe: frame %d instead of go", f.Type)
	}
	if err := wire.Unmarshal(f.Body, &p.start); err != nil {
		return fmt.Errorf("sync pipe: %w", err)
	}
	if p.start.PreparedRoot {
		if len(f.Files) != 1 {
			return fmt.Errorf("sync pipe: go brings %d descriptors instead of the root", len(f.Files))
		}
		p.root = f.Files[0]
	}
	return nil
}

// loadEnvironment drops the init's own environment, so that nothing of the host's remains.
func (p *process) loadEnvironment() error {
	os.Clearenv()
	for _, kv := range p.start.Env {
		k, v, ok := cut(kv)
		if !ok {
			return fmt.Errorf("%q: not NAME=value", kv)
		}
		if err := os.Setenv(k, v); err != nil {
			return fmt.Errorf("%q: %w", kv, err)
		}
	}
	return nil
}

func cut(kv string) (k, v string, ok bool) {
	for i := 1; i < len(kv); i++ {
		if kv[i] == '=' {
			return kv[:i], kv[i+1:], true
		}
	}
	return "", "", false
}
