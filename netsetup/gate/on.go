//go:build nsinit_gates

package gate

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The host side reads the gates from its environment and hands those of the steps on
// as arguments of the init, whose environment is empty:
//
//	NSINIT_GATE=SIDE:STEP:PHASE   stop there: write "SIDE STEP PHASE\n" to the fifo and wait to be killed or released
//	NSINIT_GATE_FIFO=PATH         where the stopped side says so; then it reads the fifo PATH.go
//	NSINIT_SKIP=SIDE:STEP         leave this step out
//	NSINIT_KILL=N                 end by SIGKILL before the Nth change, and say on stderr which that is
var gateSpec, gateSkip string

var gateOut, gateIn *os.File

// Open takes the environment's gates of steps; it must be called before any namespace is changed.
func Open() {
	gateSpec, gateSkip = os.Getenv("NSINIT_GATE"), os.Getenv("NSINIT_SKIP")
	if path := os.Getenv("NSINIT_GATE_FIFO"); path != "" {
		gateOut, _ = os.OpenFile(path, os.O_RDWR, 0)
		gateIn, _ = os.OpenFile(path+".go", os.O_RDWR, 0)
	}
}

// At stops at a step's gate if it is the one that was asked for.
func At(side, name, phase string) {
	if gateSpec != side+":"+name+":"+phase || gateOut == nil {
		return
	}
	fmt.Fprintf(gateOut, "%s %s %s\n", side, name, phase)
	var b [1]byte
	_, _ = unix.Read(int(gateIn.Fd()), b[:])
}

// Skipped tells whether a step is to be left out.
func Skipped(side, name string) bool {
	for s := range strings.SplitSeq(gateSkip, ",") {
		if s == side+":"+name {
			return true
		}
	}
	return false
}

// Env is the part of the environment that the init needs for its own gates.
func Env() []string {
	var env []string
	for _, k := range []string{"NSINIT_GATE", "NSINIT_GATE_FIFO", "NSINIT_SKIP"} {
		if v := os.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

var changes atomic.Int64

var killAt = sync.OnceValue(func() int64 {
	n, _ := strconv.ParseInt(os.Getenv("NSINIT_KILL"), 10, 64)
	return n
})

// Change stands before each change of the kernel's network and of a file that others
// read later. It ends the process if it is the one that was asked for.
func Change() {
	if changes.Add(1) != killAt() {
		return
	}
	fmt.Fprintf(os.Stderr, "gate: killed before %s\n", callers())
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // until this thread is ended, too
}

// callers names the functions that lead here, the innermost first.
func callers() string {
	const depth = 5
	var pcs [depth]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var names []string
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, "nsinit") {
			names = append(names, f.Function[strings.LastIndexByte(f.Function, '.')+1:])
		}
		if !more {
			return strings.Join(names, " < ")
		}
	}
}
