package main

import (
	"errors"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Variables are initialised before the first init is run.
var _ = func() bool {
	underTest = true
	return true
}()

// The scripts run the test binary under the name of the command: no build, and
// coverage counts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nsinit": func() {
		runtime.LockOSThread() // as init is
		main()
	}})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"fails": fails},
	})
}

// fails runs a command that must end with an exit code and print one line on
// stderr and nothing on stdout: fails 125 nsinit run --x.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: fails CODE PROGRAM [ARGS...]")
	}
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("%v, want exit code %d", err, want)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout: %q", out)
	}
	if line := ts.ReadFile("stderr"); len(line) == 0 || line[len(line)-1] != '\n' || countLines(line) != 1 {
		ts.Fatalf("stderr is not one line: %q", line)
	}
}

func countLines(s string) (n int) {
	for _, r := range s {
		if r == '\n' {
			n++
		}
	}
	return n
}
