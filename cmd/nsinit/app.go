package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

// Exit codes are docker's: the program's own, 128+signal, and these. 126 (can't
// be executed) and 127 (not found) come from the container package.
const exitFailure = 125

// An app is one run of the command line: what it talks to, and what holds for
// every verb.
type app struct {
	stdout, stderr io.Writer
	lookupEnv      func(string) (string, bool)

	root  string // --root; "" = the runtime's own
	json  bool   // --json
	trace bool   // --trace
	help  bool   // --help
}

func newApp() *app {
	return &app{stdout: os.Stdout, stderr: os.Stderr, lookupEnv: os.LookupEnv}
}

// main runs one command line and returns the exit code.
func (a *app) main(args []string) int {
	if a.isPlugin(args) {
		return a.servePlugin()
	}
	code, err := a.run(args)
	if err != nil {
		return a.fail(code, err)
	}
	return code
}

// run finds the verb and runs it. The code is the exit code for err too.
func (a *app) run(args []string) (int, error) {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return exitFailure, errors.New("set-user-ID: nsinit isn't made to be: take the bit off and use sudo")
	}
	var version bool
	set := newFlagSet("nsinit", false, []group{a.globalFlags(&version)})
	if err := set.parse(args); err != nil {
		return exitFailure, err
	}
	args = set.args()
	switch {
	case version:
		args = []string{"version"}
	case a.help:
		args = append([]string{"help"}, args...)
		a.help = false
	case len(args) == 0:
		return exitFailure, fmt.Errorf("no command given; one of %s; see nsinit help", strings.Join(verbNames(), ", "))
	}
	v, rest, err := findVerb(args)
	if err != nil {
		return exitFailure, err
	}
	return a.runVerb(v, rest)
}

// runVerb parses the verb's flags and acts.
func (a *app) runVerb(v verb, args []string) (int, error) {
	groups, act := v.setup(a)
	set := newFlagSet(v.name, !v.program, append(groups, a.globalFlags(nil)))
	if err := set.parse(args); err != nil {
		return exitFailure, fmt.Errorf("%s: %w", v.name, err)
	}
	if a.help {
		return 0, a.printHelp(v)
	}
	if err := v.checkArgs(set.args()); err != nil {
		return exitFailure, fmt.Errorf("%s: %w", v.name, err)
	}
	code, err := act(set.args())
	if err == nil {
		return code, nil
	}
	var usage *usageError
	if v.program && !errors.As(err, &usage) {
		return container.ExitCode(err), err
	}
	return exitFailure, fmt.Errorf("%s: %w", v.name, err)
}

// runtime is the container runtime that the global flags ask for.
func (a *app) runtime() *container.Runtime {
	r := &container.Runtime{Root: a.root, Stderr: a.stderr}
	if a.trace {
		r.Trace = a.stderr
	}
	return r
}

// A usageError is a fault of the command line: 125, whatever it wraps.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usage makes a fault of the command line.
func usage(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}
