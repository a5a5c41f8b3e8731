package container

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// prepareEntry sees to it that the container can't look into this process between the clone and the exec of the program.
func (j *joiner) prepareEntry() (err error) {
	p := j.rec.state.Process
	if !p.Privileged && !slices.Contains(p.Caps, "CAP_SYS_PTRACE") && slices.Contains(j.caps.Bounding, "CAP_SYS_PTRACE") {
		if err := j.rec.addTracer(); err != nil {
			return err
		}
	}
	if j.entering, err = lockWithin(j.rec.path(enteringFile), entryPatience, shared); err != nil {
		return err
	}
	switch {
	case j.rec.watched():
		j.entering.Unlock()
		j.freezer, err = j.rec.openFreezer()
	case j.rec.state.Cgroup != "" && frozen(j.rec.state.Cgroup):
		err = errPaused
	}
	return err
}

// freeze stops the container's processes. A signal that ends, or an exec that hangs, ends the entry until they run again,
// and nothing else that waits may come between: no collection, which would wait for the thread that clones, no signal
// that stops this process, no line of --trace.
func (j *joiner) freeze() error {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // the thread that clones keeps one until the exec
	signal.Notify(j.caught.C, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	if !j.rec.state.Process.NoNewPrivs && j.user.UID != 0 {
		j.warn("exec: the container could look into the process that enters it: set-user-ID and file capabilities of the program itself are without effect")
	}
	j.guarded, j.unguard = make(chan struct{}), make(chan struct{})
	go j.guard()
	err := j.freezer.stop()
	gate.At("exec", "exec", "frozen")
	return err
}

func (j *joiner) guard() {
	defer close(j.guarded)
	late := time.After(entryPatience)
	var held []os.Signal
	defer func() {
		for _, s := range held {
			select {
			case j.caught.C <- s:
			default:
			}
		}
	}()
	for {
		select {
		case s := <-j.caught.C:
			held = append(held, s) // for the program, if it is too late for that
			switch s {
			case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
				j.freezer.abandon()
			}
		case <-late:
			j.freezer.abandon()
		case <-j.unguard:
			return
		}
	}
}

// letGo ends the guard and lets the container's processes run again.
func (j *joiner) letGo() error {
	if j.unguard != nil {
		close(j.unguard)
		<-j.guarded
		j.unguard = nil
	}
	return j.freezer.letGo()
}

// enterFrozen lets the child and all of the container run, where it was stopped.
func (j *joiner) enterFrozen() error {
	if j.freezer == nil {
		return nil
	}
	ended, err := j.freezer.enter(j.pid)
	err = errors.Join(err, j.letGo())
	if err != nil && !ended {
		_ = unix.Kill(j.pid, unix.SIGKILL)
		_, _ = j.wait()
	}
	return err
}
