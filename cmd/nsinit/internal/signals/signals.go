// Package signals catches what a foreground run passes on to its program. The Go runtime switches threads several
// times for each signal that it begins to catch, a third of a millisecond together, so a run begins with it in
// this package's init, beside those of the packages that it needs later.
package signals

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// Caught are signals that are caught, or soon will be.
type Caught struct {
	C      chan os.Signal
	Ending chan struct{} // closed when those are caught that end a start
	Common chan struct{} // closed when those are, too, that no program should miss
}

var early *Caught

func init() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		early = catch()
	}
}

// Catch begins to catch the common signals, or returns what has begun.
func Catch() *Caught {
	if early == nil {
		early = catch()
	}
	return early
}

func catch() *Caught {
	c := &Caught{C: make(chan os.Signal, 64), Ending: make(chan struct{}), Common: make(chan struct{})}
	go func() {
		signal.Notify(c.C, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
		close(c.Ending)
		signal.Notify(c.C, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
		close(c.Common)
	}()
	return c
}

// othersAfter is when a program has turned out to stay: a short one would pay for more than sixty signals.
const othersAfter = 100 * time.Millisecond

// CatchOthers catches the other signals, too, after a while.
func (c *Caught) CatchOthers() {
	time.AfterFunc(othersAfter, func() { signal.Notify(c.C) })
}
