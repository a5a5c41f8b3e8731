// Command nsinit runs a program in new namespaces, on a network that nsinit
// builds itself. `nsinit help` says what it can do.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	_ "github.com/nsinit/nsinit/cmd/nsinit/internal/descriptors" // before all others
	_ "github.com/nsinit/nsinit/cmd/nsinit/internal/inside"      // a container's init enters there, before main
	_ "github.com/nsinit/nsinit/cmd/nsinit/internal/signals"     // early, beside the init of what follows
)

// init runs the command. Children are started from the main thread: a parent-death
// signal is sent when the thread that made the child ends, and only the main
// thread lives as long as the process. The runtime holds init functions there
// (runtime.LockOSThread); to lock it for main would cost each start another thread.
func init() {
	if !underTest {
		main()
	}
}

// underTest is set by the tests, which call main themselves.
var underTest bool

func main() { os.Exit(newApp().main(os.Args[1:])) }
