package inside

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"golang.org/x/sys/unix"
)

// reap is nsinit as PID 1 of a container with --init: it starts the program, forwards signals to it,
// reaps orphans, and ends with the program's status. args are "terminal" or "", the program's path, and its arguments.
func reap(args []string) int {
	conn := wire.NewConn(SyncFD)
	unix.CloseOnExec(SyncFD)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}
	if args[0] == "terminal" {
		// The program is in the foreground, so that the terminal's own signals go to it and not to PID 1.
		attr.Sys = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
	}
	pid, err := syscall.ForkExec(args[1], args[2:], attr)
	if err != nil {
		f := failure(program.ExecError(args[1], err))
		f.Step = "exec"
		_ = conn.Send(wire.Failed, f)
		return f.Code
	}
	_ = conn.Close()
	go forward(signals, pid)
	return waitFor(pid)
}

func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD, unix.SIGURG: // ours, and the Go runtime's
		default:
			_ = unix.Kill(pid, s.(syscall.Signal))
		}
	}
}

// waitFor reaps every child until pid ends. What is left then is killed by the kernel, with its PID 1.
func waitFor(pid int) int {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 125
		case got == pid:
			return program.ExitStatus(status)
		}
	}
}
