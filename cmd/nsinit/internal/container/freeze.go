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
// are stopped meanwhile, by their cgroup. One that is born there would be stopped itself, so it is born in a cgroup beside
// it, stops by ptrace(2) at its exec, before the program's first instruction, and is moved in then. Whatever is still in the
// cgroup beside it is ended before the container's processes run again, whoever lets them: its exec may hang, for as long
// as the container holds a lease on the program's file (fcntl(2)).

const (
	frozenFile   = "frozen"   // locked by who stops the container's processes, and not empty while they may be
	tracerFile   = "tracer"   // is there when a program with CAP_SYS_PTRACE was put into a container without
	enteringFile = "entering" // locked, shared, by who enters without stopping anybody; alone, by who makes tracerFile

	freezePatience = 2 * time.Second  // for the container's processes to stop, and for those that enter to end
	entryPatience  = 10 * time.Second // for others that enter, and for the exec
)

// watched tells whether a process of the container could look into one that enters it. A privileged container has all
// of the host anyway.
func (c *record) watched() bool {
	p := c.state.Process
	if p.Privileged {
		return false
	}
	for _, name := range []string{tracerFile, frozenFile} { // the latter: somebody is about to be looked into
		if _, err := os.Lstat(c.path(name)); err == nil {
			return true
		}
	}
	if slices.Contains(p.Caps, "CAP_SYS_PTRACE") {
		return true
	}
	dumpable, err := os.ReadFile("/proc/sys/fs/suid_dumpable")
	return err != nil || strings.TrimSpace(string(dumpable)) == "1"
}

// addTracer writes down that a program with CAP_SYS_PTRACE enters, once those have entered who didn't know.
func (c *record) addTracer() error {
	l, err := lockWithin(c.path(enteringFile), entryPatience, alone)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return os.WriteFile(c.path(tracerFile), nil, 0o600)
}

func alone(path string) (*lock, error)  { return lockFile(path, unix.LOCK_EX|unix.LOCK_NB) }
func shared(path string) (*lock, error) { return lockFile(path, unix.LOCK_SH|unix.LOCK_NB) }

// lockProcess is alone, for this process: a child that has the descriptor, too, until its exec, doesn't hold the lock
// (fcntl(2), F_SETLK), as it would one of flock(2).
func lockProcess(path string) (*lock, error) {
	return openLock(path, os.O_RDWR|os.O_CREATE, func(fd uintptr) error {
		return unix.FcntlFlock(fd, unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	})
}

// lockWithin takes a lock whose file its holders may remove, and doesn't wait for ever.
func lockWithin(path string, patience time.Duration, take func(path string) (*lock, error)) (*lock, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l, err := take(path)
		switch {
		case err == nil && l.at(path):
			return l, nil
		case err == nil:
			l.Unlock()
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("another nsinit exec has been entering the container for %s: %w", patience, err)
		}
	}
}

// A freezer stops a container's processes while one enters. Its files are opened on the host, for a thread that is
// inside by then.
type freezer struct {
	lock                  *lock
	record                *os.File // the record's directory
	freeze, events, procs *os.File // of the container's cgroup

	parent      *os.File // where both cgroups are
	entry       string   // name of the one beside the container's
	dir, kill   *os.File // it
	entryEvents *os.File
}

// entryCgroup is the cgroup beside the container's. No container can be called so.
func (c *record) entryCgroup() string {
	return filepath.Join(filepath.Dir(c.state.Cgroup), ".entering-"+c.id())
}

// openFreezer waits for others that stop the container.
func (c *record) openFreezer() (*freezer, error) {
	if c.state.Cgroup == "" {
		return nil, errors.New("the container could look into the process that enters it (it has CAP_SYS_PTRACE, or fs.suid_dumpable is 1), and this host has no unified cgroup hierarchy to stop it by meanwhile; start the program with nsinit run")
	}
	l, err := lockWithin(c.path(frozenFile), entryPatience, lockProcess)
	if err != nil {
		return nil, err
	}
	f := &freezer{lock: l, entry: filepath.Base(c.entryCgroup())}
	if err := c.clearEntry(); err != nil {
		f.close()
		return nil, err
	}
	if l.marked() { // by an exec that was killed
		if err := errors.Join(thawCgroup(c.state.Cgroup), l.f.Truncate(0)); err != nil {
			f.close()
			return nil, err
		}
	}
	if frozen(c.state.Cgroup) {
		err = errPaused
	} else {
		err = f.open(c)
	}
	if err == nil {
		_, err = l.f.WriteString("1") // now: the container's limits may forbid it later
	}
	if err != nil {
		err = errors.Join(err, os.Remove(c.path(frozenFile)))
		f.close()
		return nil, err
	}
	return f, nil
}

// thawCgroup lets a cgroup's processes run again. One that is gone has none.
func thawCgroup(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("0"), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

var errPaused = errors.New("is paused: its cgroup is frozen; write 0 to its cgroup.freeze")

// frozen tells whether somebody asked for the cgroup to be stopped.
func frozen(cgroup string) bool {
	asked, err := os.ReadFile(filepath.Join(cgroup, "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(asked)) == "1"
}

// marked tells whether something was written to the lock's file.
func (l *lock) marked() bool {
	st, err := l.f.Stat()
	return err == nil && st.Size() > 0
}

// clearEntry ends what an exec that was killed has left beside the container.
func (c *record) clearEntry() error {
	if c.state.Cgroup == "" {
		return nil
	}
	path := c.entryCgroup()
	if err := errors.Join(killCgroup(path), removeCgroup(path)); err != nil {
		return fmt.Errorf("a process that an earlier exec left doesn't end: %w", err)
	}
	return nil
}

func (f *freezer) open(c *record) (err error) {
	entry, err := makeCgroup(c.entryCgroup())
	if err != nil {
		return err
	}
	f.dir = entry
	for _, open := range []struct {
		to    **os.File
		path  string
		flags int
	}{
		{&f.record, c.dir, unix.O_PATH | unix.O_DIRECTORY},
		{&f.parent, filepath.Dir(c.state.Cgroup), unix.O_PATH | unix.O_DIRECTORY},
		{&f.freeze, filepath.Join(c.state.Cgroup, "cgroup.freeze"), os.O_WRONLY},
		{&f.events, filepath.Join(c.state.Cgroup, "cgroup.events"), os.O_RDONLY},
		{&f.procs, filepath.Join(c.state.Cgroup, "cgroup.procs"), os.O_WRONLY},
		{&f.kill, filepath.Join(c.entryCgroup(), "cgroup.kill"), os.O_WRONLY},
		{&f.entryEvents, filepath.Join(c.entryCgroup(), "cgroup.events"), os.O_RDONLY},
	} {
		if *open.to, err = os.OpenFile(open.path, open.flags|unix.O_CLOEXEC, 0); err != nil {
			return errors.Join(err, unix.Rmdir(c.entryCgroup()))
		}
	}
	return nil
}

// stop stops the container's processes, and returns when none of them can run.
func (f *freezer) stop() error {
	if _, err := f.freeze.WriteString("1"); err != nil {
		return fmt.Errorf("freeze the cgroup: %w", err)
	}
	if err := await(f.events, "frozen 1"); err != nil {
		return fmt.Errorf("the container's processes do not stop (one waits in the kernel): %w; try again", err)
	}
	return nil
}

// await waits for a line of a cgroup.events.
func await(events *os.File, line string) error {
	var buf [256]byte
	for deadline := time.Now().Add(freezePatience); ; time.Sleep(time.Millisecond) {
		n, err := events.ReadAt(buf[:], 0)
		switch {
		case n == 0 && err != nil:
			return err
		case bytes.Contains(buf[:n], []byte(line)):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("not within %s", freezePatience)
		}
	}
}

// abandon ends the process that enters.
func (f *freezer) abandon() { _, _ = f.kill.WriteString("1") }

// enter moves the traced process pid, which has just executed its program, into the container's cgroup, where it begins
// to run when that is let go. A process that has ended instead is reaped: ended says so.
func (f *freezer) enter(pid int) (ended bool, err error) {
	status, err := waitFor(pid)
	if err != nil {
		return false, fmt.Errorf("wait for its exec: %w", err)
	}
	if !status.Stopped() {
		return true, errors.New("was ended before the program ran, by a signal or since its exec hung")
	}
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL); err != nil {
		return false, fmt.Errorf("ptrace: %w", err)
	}
	if _, err := fmt.Fprint(f.procs, pid); err != nil {
		return false, fmt.Errorf("into the container's cgroup: %w", err)
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		return false, fmt.Errorf("ptrace: let go: %w", err)
	}
	return false, nil
}

// letGo lets the container's processes run again, unless something is left that they could look into. A second call
// does nothing.
func (f *freezer) letGo() error {
	if f == nil || f.lock == nil {
		return nil
	}
	defer f.close()
	f.abandon()
	if err := await(f.entryEvents, "populated 0"); err != nil {
		return fmt.Errorf("the process that entered does not end: %w: the container stays stopped until nsinit gc", err)
	}
	if err := unix.Unlinkat(int(f.parent.Fd()), f.entry, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", f.entry, err)
	}
	if _, err := f.freeze.WriteString("0"); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("thaw the cgroup: %w", err)
	}
	return unix.Unlinkat(int(f.record.Fd()), frozenFile, 0)
}

func (f *freezer) close() {
	for _, file := range []*os.File{f.record, f.freeze, f.events, f.procs, f.parent, f.dir, f.kill, f.entryEvents} {
		_ = file.Close()
	}
	f.lock.Unlock()
	f.lock = nil
}

// thaw lets a container run again that a killed exec has left stopped. It tells whether there was one.
func (c *record) thaw() (left bool, err error) {
	if _, err := os.Lstat(c.path(frozenFile)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	l, err := lockProcess(c.path(frozenFile))
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrNotExist) { // one that is under way, or the container is gone
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	if !l.at(c.path(frozenFile)) {
		return false, nil
	}
	if err := c.clearEntry(); err != nil {
		return true, err
	}
	if left = l.marked(); left {
		if err := thawCgroup(c.state.Cgroup); err != nil {
			return true, err
		}
	}
	if err := os.Remove(c.path(frozenFile)); !errors.Is(err, os.ErrNotExist) {
		return left, err
	}
	return left, nil
}
