package inside

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is used where the environment has no PATH, as execvp(3) would.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programError is a program that can't be found (127) or executed (126).
type programError struct {
	code int
	text string
	err  error
}

func (e *programError) Error() string { return e.text + ": " + e.err.Error() }
func (e *programError) Unwrap() error { return e.err }

// execError sorts what execve(2) said of path as a shell does.
func execError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return &programError{127, path, err}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR),
		errors.Is(err, unix.E2BIG), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		return &programError{126, path, err}
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (p *process) findProgram() (err error) {
	p.env = p.start.Env
	if _, ok := os.LookupEnv("HOME"); !ok {
		p.env = append(p.env, "HOME="+p.user.Home)
	}
	p.path, err = lookPath(p.start.Args[0], os.Getenv("PATH"))
	return err
}

// lookPath finds the program as the user who will run it. Unlike exec.LookPath it tells a file that may not be executed
// (126) from one that isn't there (127).
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if path == "" {
		path = defaultPath
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if pe, ok := errors.AsType[*programError](err); ok && pe.code == 126 && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &programError{127, fmt.Sprintf("%q", name), fmt.Errorf("not found in PATH %s", path)}
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return execError(path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &programError{126, path, unix.EISDIR}
	}
	// By the effective user, as execve(2) will judge.
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return execError(path, noexec(path, err))
	}
	return nil
}

// noexec says where a refusal comes from the mount and not from the file.
func noexec(path string, err error) error {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%w: the file system is mounted noexec", err)
	}
	return err
}

// exec becomes the program, from the main thread: any other one would lose the parent-death signal. The sync
// pipe closes by close-on-exec, which tells the host side that the program runs.
func (p *process) exec() error {
	if err := p.setDeathSignal(); err != nil {
		return err
	}
	if p.start.Init {
		return p.becomeReaper()
	}
	return execError(p.path, syscall.Exec(p.path, p.start.Args, p.env))
}

// setDeathSignal has a foreground container die with its host side. The change of user has cleared what clone
// set (prctl(2), PR_SET_PDEATHSIG), and the host side may have died in between: then its end of the
// sync pipe is closed. In a new pid namespace getppid(2) can't tell.
func (p *process) setDeathSignal() error {
	sig := unix.SIGKILL
	if p.start.Detach {
		sig = 0
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(p.conn.FD()), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0 {
		return errParentDied
	}
	return nil
}

// becomeReaper executes nsinit once more, with the program's own credentials: it stays as PID 1 and the program is
// its child. The threads of this process that still have root's credentials end with the exec. The sync pipe stays open
// until the reaper has started the program.
func (p *process) becomeReaper() error {
	if _, err := unix.FcntlInt(SyncFD, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep the sync pipe: %w", err)
	}
	terminal := ""
	if p.start.Terminal {
		terminal = "terminal"
	}
	args := append([]string{reaperArgv0, terminal, p.path}, p.start.Args...)
	return fmt.Errorf("nsinit as PID 1: %w", syscall.Exec("/proc/self/exe", args, p.env))
}
