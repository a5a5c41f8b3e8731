package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process that enters a container is one of it, with this process's memory and descriptors, from the clone to the exec of
// the program (CVE-2016-9962). It isn't dumpable, so that nobody may look into it, but for two cases: CAP_SYS_PTRACE
// overrides that, and fs.suid_dumpable=1 makes it dumpable to the user that it becomes. There the container's processes
// are stopped meanwhile, by their cgroup. One that is born there would be stopped itself, so it is cloned outside, stops by
// ptrace(2) at its exec, before the program's first instruction, and is moved in then.

const (
	frozenFile = "frozen" // locked by who stops the container's processes, and not empty while they are
	tracerFile = "tracer" // is there when a program with CAP_SYS_PTRACE was put into a container without

	freezePatience = 2 * time.Second
)

// A freezer stops a container's processes. Its files are opened on the host, for whoever is inside by then.
type freezer struct {
	lock                  *lock
	dir                   *os.File // the record's
	freeze, events, procs *os.File // of the cgroup
}

// watched tells whether a process of the container could look into one that enters it. A privileged container has all
// of the host anyway.
func (c *record) watched() bool {
	p := c.state.Process
	if p.Privileged {
		return false
	}
	if _, err := os.Lstat(c.path(tracerFile)); err == nil || slices.Contains(p.Caps, "CAP_SYS_PTRACE") {
		return true
	}
	dumpable, err := os.ReadFile("/proc/sys/fs/suid_dumpable")
	return err != nil || strings.TrimSpace(string(dumpable)) == "1"
}

// openFreezer waits for others that stop the container.
func (c *record) openFreezer() (*freezer, error) {
	if c.state.Cgroup == "" {
		return nil, errors.New("the container could look into the process that enters it (it has CAP_SYS_PTRACE, or fs.suid_dumpable is 1), and this host has no unified cgroup hierarchy to stop it by meanwhile; start the program with nsinit run")
	}
	f := &freezer{}
	var err error
	for f.lock == nil || !f.lock.at(c.path(frozenFile)) {
		f.lock.Unlock()
		if f.lock, err = lockFile(c.path(frozenFile), unix.LOCK_EX); err != nil {
			return nil, err
		}
	}
	left := f.lock.marked() // by an exec that was killed
	if !left && frozen(c.state.Cgroup) {
		err = errPaused
	} else {
		err = f.open(c)
	}
	if err == nil {
		return f, nil
	}
	if !left {
		err = errors.Join(err, unix.Unlink(c.path(frozenFile)))
	}
	f.close()
	return nil, err
}

func (f *freezer) open(c *record) (err error) {
	for _, open := range []struct {
		to    **os.File
		path  string
		flags int
	}{
		{&f.dir, c.dir, unix.O_PATH | unix.O_DIRECTORY},
		{&f.freeze, filepath.Join(c.state.Cgroup, "cgroup.freeze"), os.O_WRONLY},
		{&f.events, filepath.Join(c.state.Cgroup, "cgroup.events"), os.O_RDONLY},
		{&f.procs, filepath.Join(c.state.Cgroup, "cgroup.procs"), os.O_WRONLY},
	} {
		if *open.to, err = os.OpenFile(open.path, open.flags|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	return nil
}

var errPaused = errors.New("is paused: its cgroup is frozen; write 0 to its cgroup.freeze")

// marked tells whether something was written to the lock's file.
func (l *lock) marked() bool {
	st, err := l.f.Stat()
	return err == nil && st.Size() > 0
}

// frozen tells whether somebody asked for the cgroup to be stopped.
func frozen(cgroup string) bool {
	asked, err := os.ReadFile(filepath.Join(cgroup, "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(asked)) == "1"
}

// stop stops the container's processes, and returns when none of them can run.
func (f *freezer) stop() error {
	if _, err := f.lock.f.WriteString("1"); err != nil { // first: whoever finds it lets them go
		return err
	}
	if _, err := f.freeze.WriteString("1"); err != nil {
		return fmt.Errorf("freeze the cgroup: %w", err)
	}
	var events [256]byte
	for deadline := time.Now().Add(freezePatience); ; time.Sleep(time.Millisecond) {
		n, err := f.events.ReadAt(events[:], 0)
		if n == 0 && err != nil {
			return fmt.Errorf("freeze the cgroup: %w", err)
		}
		if bytes.Contains(events[:n], []byte("frozen 1")) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the container's processes did not stop within %s (one waits in the kernel); try again", freezePatience)
		}
	}
}

// enter moves the traced process pid, which has just executed its program, into the container's cgroup, where it begins
// to run when that is let go. It ends with this process until then.
func (f *freezer) enter(pid int) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for its exec: %w", err)
		}
	}
	if !status.Stopped() {
		return fmt.Errorf("the program ended before it ran (status %#x)", uint32(status))
	}
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	if _, err := fmt.Fprint(f.procs, pid); err != nil {
		return fmt.Errorf("into the container's cgroup: %w", err)
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		return fmt.Errorf("ptrace: let go: %w", err)
	}
	return nil
}

// letGo lets the container's processes run again. A second call does nothing.
func (f *freezer) letGo() error {
	if f == nil || f.lock == nil {
		return nil
	}
	var err error
	if f.lock.marked() {
		_, err = f.freeze.WriteString("0")
	}
	if err != nil {
		err = fmt.Errorf("thaw the cgroup: %w", err)
	} else {
		err = unix.Unlinkat(int(f.dir.Fd()), frozenFile, 0)
	}
	f.close()
	return err
}

func (f *freezer) close() {
	for _, file := range []*os.File{f.dir, f.freeze, f.events, f.procs} {
		_ = file.Close()
	}
	f.lock.Unlock()
	f.lock = nil
}

// thaw lets a container run again that a killed exec has left stopped. It tells whether there was one.
func (c *record) thaw() (bool, error) {
	l, err := probeLock(c.path(frozenFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) { // none, or one that is under way
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	if !l.at(c.path(frozenFile)) {
		return false, nil
	}
	left := l.marked()
	if left {
		if err := os.WriteFile(filepath.Join(c.state.Cgroup, "cgroup.freeze"), []byte("0"), 0); err != nil {
			return true, err
		}
	}
	return left, os.Remove(c.path(frozenFile))
}
