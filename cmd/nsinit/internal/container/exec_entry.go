package container

import (
	"errors"
	"os"
	"slices"
	"time"

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

func (j *joiner) mustFreeze() bool { return j.freezer != nil }

// freeze stops the container's processes. A signal that ends, or an exec that hangs, ends the entry until they run again.
func (j *joiner) freeze() error {
	if !j.rec.state.Process.NoNewPrivs && j.user.UID != 0 {
		j.warn("exec: the container could look into the process that enters it: set-user-ID and file capabilities of the program itself are without effect")
	}
	if err := j.freezer.stop(); err != nil {
		return err
	}
	j.guarded, j.unguard = make(chan struct{}), make(chan struct{})
	go j.guard()
	return nil
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
