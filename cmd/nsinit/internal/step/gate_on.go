//go:build nsinit_gates

package step

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Gates are for the fault tests alone and are compiled in by a build tag only. The
// host side reads them from its environment and hands them on as arguments
// of the init, whose environment is empty:
//
//	NSINIT_GATE=SIDE:STEP:PHASE   stop there: write "PID\n" to the fifo and wait to be killed or released
//	NSINIT_GATE_FIFO=PATH         where the stopped side says its pid, as the host sees it; then it reads the fifo PATH.go
//	NSINIT_SKIP=SIDE:STEP         leave this step out
var gateSpec, gateSkip string

var gateOut, gateIn *os.File

// OpenGate takes the environment's gates; it must be called before any namespace is changed.
func OpenGate() {
	gateSpec, gateSkip = os.Getenv("NSINIT_GATE"), os.Getenv("NSINIT_SKIP")
	if path := os.Getenv("NSINIT_GATE_FIFO"); path != "" {
		gateOut, _ = os.OpenFile(path, os.O_RDWR, 0)
		gateIn, _ = os.OpenFile(path+".go", os.O_RDWR, 0)
	}
}

func gate(side, name, phase string) {
	if gateSpec != side+":"+name+":"+phase || gateOut == nil {
		return
	}
	fmt.Fprintf(gateOut, "%s %s %s\n", side, name, phase)
	var b [1]byte
	_, _ = unix.Read(int(gateIn.Fd()), b[:])
}

func skipped(side, name string) bool {
	for s := range strings.SplitSeq(gateSkip, ",") {
		if s == side+":"+name {
			return true
		}
	}
	return false
}

// GateEnv is the part of the environment that the init needs for its own gates.
func GateEnv() []string {
	var env []string
	for _, k := range []string{"NSINIT_GATE", "NSINIT_GATE_FIFO", "NSINIT_SKIP"} {
		if v := os.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}
