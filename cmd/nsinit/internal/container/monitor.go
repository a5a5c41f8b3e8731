package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/signals"
)

// monitorEnv tells a process that it stays behind for a detached container, and on which descriptor its parent waits
// for the outcome.
const monitorEnv = "NSINIT_MONITOR"

// needsMonitor tells whether a process of ours has to stay with a detached container: a terminal needs somebody at its
// other end.
func (s *Spec) needsMonitor() bool {
	return s.Detach && s.OCI.Process.Terminal && os.Getenv(monitorEnv) == ""
}

func (r *Runtime) isMonitor() bool { return os.Getenv(monitorEnv) != "" }

// startMonitor runs the same command once more in a session of its own, and reports its start as ours.
func (r *Runtime) startMonitor(s *Spec) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return exitNsinit, err
	}
	defer null.Close()
	rd, wr, err := os.Pipe()
	if err != nil {
		return exitNsinit, err
	}
	defer rd.Close()
	args := append([]string{os.Args[0]}, os.Args[1:]...)
	attr := &os.ProcAttr{
		Env:   append(os.Environ(), monitorEnv+"="+s.ID),
		Files: []*os.File{null, os.Stdout, os.Stderr, wr},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	monitor, err := os.StartProcess("/proc/self/exe", args, attr)
	if err := errors.Join(err, wr.Close()); err != nil {
		return exitNsinit, fmt.Errorf("monitor: %w", err)
	}
	// Until it has said how the start went it is ended as we would be; it has a session of its own.
	caught := signals.Catch()
	<-caught.Common
	go func() {
		for sig := range caught.C {
			_ = monitor.Signal(sig)
		}
	}()
	report, err := io.ReadAll(rd)
	if err != nil {
		return exitNsinit, fmt.Errorf("monitor: %w", err)
	}
	code, text, ok := bytes.Cut(report, []byte(" "))
	n, convErr := strconv.Atoi(string(code))
	if !ok || convErr != nil {
		return exitNsinit, errors.New("monitor: ended before the container ran")
	}
	if n > program.ExitSignal {
		s.Detach = false // there is nothing left to be detached
		return n, nil
	}
	if n != 0 {
		return n, &monitorError{n, strings.TrimSpace(string(text))}
	}
	return 0, nil
}

// monitorError is the failure that the monitor reported.
type monitorError struct {
	code int
	text string
}

func (e *monitorError) Error() string { return e.text }

// reportToParent tells the waiting parent how the start went, and lets it go. sig is the signal that ended it, or 0.
func reportToParent(sig syscall.Signal, err error) {
	const fd = 3
	code, text := ExitCode(err), ""
	switch {
	case sig != 0:
		code = program.ExitSignal + int(sig)
	case err != nil:
		text = oneLine(err)
	}
	f := os.NewFile(fd, "parent")
	_, _ = fmt.Fprintf(f, "%d %s", code, text)
	_ = f.Close()
}
