// Command nsinit runs a program in new namespaces, on a network that nsinit
// builds itself. `nsinit help` says what it can do.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"
	"runtime"

	_ "github.com/nsinit/nsinit/cmd/nsinit/internal/descriptors" // before all others
	_ "github.com/nsinit/nsinit/cmd/nsinit/internal/inside"      // a container's init enters there, before main
)

// Children are started from the main thread: a parent-death signal is sent when
// the thread that made the child ends, and only the main thread lives as long as
// the process. container.Run unlocks it once its child is there.
func init() { runtime.LockOSThread() }

func main() { os.Exit(newApp().main(os.Args[1:])) }
