package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/inside"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/signals"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/step"
	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/lsm"
	"github.com/nsinit/nsinit/netsetup/gate"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An ExecSpec is a further program in a running container.
type ExecSpec struct {
	Process     specs.Process // Args, Env (added to the container's), Cwd ("" = the container's), Terminal
	User        string        // "" = the container's
	Interactive bool
	Detach      bool
	Privileged  bool
	CapAdd      []string
	CapDrop     []string
	PidFile     string
}

// joiner is one exec. It changes the calling thread, locked to main, step by step into one of the container and starts
// the program from it: the child inherits namespaces, limits, label and bounding set, and is in the container's pid namespace
// only when it is all of that. Until its exec the child shares this process's memory, which is not dumpable (CVE-2016-9962),
// and it is executed from the protected copy of nsinit, since a script may begin with #!/proc/self/exe (CVE-2019-5736).
type joiner struct {
	*Runtime
	id   string
	spec *ExecSpec
	rec  *record
	caps *specs.LinuxCapabilities

	pidfd  *os.File
	proc   *os.File // the host's procfs, opened before the mount namespace changes
	cgroup *os.File
	stdio  [3]*os.File
	pty    *fs.Pty
	user   creds.User
	path   string
	env    []string
	pidTo  *os.File // the --pid-file, opened on the host
	pid    int

	caught   *signals.Caught
	entering *lock    // held while it can't
	freezer  *freezer // nil: the container can't look into this process
	unguard  chan struct{}
	guarded  chan struct{}
}

var execSteps = []step.Step[*joiner]{
	{Name: "state", Do: (*joiner).open, Undo: (*joiner).letGo},
	{Name: "join", Do: (*joiner).join},
	{Name: "user", Do: (*joiner).lookUpUser},
	{Name: "console", Do: (*joiner).openConsole, When: (*joiner).hasTerminal},
	{Name: "apparmor", Do: (*joiner).applyAppArmor},
	{Name: "selinux", Do: (*joiner).applySELinux},
	{Name: "program", Do: (*joiner).findProgram},
	{Name: "bounding", Do: (*joiner).dropBounding},
	{Name: "no-new-privs", Do: (*joiner).setNoNewPrivs},
	{Name: "rlimits", Do: (*joiner).setRlimits},
	{Name: "exec", Do: (*joiner).start},
}

// ExecSteps returns the names of the steps of nsinit exec in order.
func ExecSteps() []string { return step.Names(execSteps) }

// Exec runs a further program in container id, in all its namespaces, its cgroup and its restrictions, and returns its exit
// code unless e.Detach. The calling goroutine must be locked to the main thread, which belongs to the container
// afterwards: the process has nothing left to do but to end.
func (r *Runtime) Exec(_ context.Context, id string, e *ExecSpec) (int, error) {
	if e.Detach && e.Process.Terminal {
		return exitNsinit, errors.New("--detach: not with --tty, whose other end nobody would hold")
	}
	if err := r.sealSelf(); err != nil {
		return exitNsinit, err
	}
	gate.Open()
	// A thread that has joined another pid namespace can make no threads (clone(2), EINVAL): from now on the runtime has
	// one for that.
	runtime.LockOSThread()
	j := &joiner{Runtime: r, id: id, spec: e, caught: signals.Catch()}
	<-j.caught.Common
	if err := step.Run("exec", execSteps, j, r.tracer("exec")); err != nil {
		return ExitCode(err), err
	}
	if e.Detach {
		return 0, nil
	}
	j.caught.CatchOthers()
	go j.forward()
	finish := func() {}
	if j.pty != nil {
		finish = copyTerminal(j.pty.Master, j.caught.C, e.Interactive)
	}
	code, err := j.wait()
	finish()
	return code, err
}

func (j *joiner) open() (err error) {
	if j.rec, err = j.Runtime.open(j.id); err != nil {
		return err
	}
	if j.pidfd, err = j.rec.alive(); err != nil {
		return err
	}
	if j.pidfd == nil || j.rec.state.Status != StatusRunning {
		return fmt.Errorf("%q: is not running", j.id)
	}
	if j.rec.state.Process.Userns {
		return errors.New("the container has a user namespace, which a Go process can't enter; this comes with the OCI runtime")
	}
	if j.caps, err = j.capabilities(); err != nil {
		return err
	}
	if err := j.prepareEntry(); err != nil {
		return err
	}
	if err := j.openStdio(); err != nil {
		return err
	}
	if j.proc, err = openProc(); err != nil {
		return err
	}
	if j.spec.PidFile != "" {
		if j.pidTo, err = os.OpenFile(j.spec.PidFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
			return err
		}
	}
	if j.rec.state.Cgroup != "" {
		j.cgroup, err = os.OpenFile(j.rec.state.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return err
}

// openProc opens the host's procfs, by which the kernel's word on threads is asked for and no other.
func openProc() (*os.File, error) {
	proc, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(proc.Fd()), &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		_ = proc.Close()
		return nil, errors.New("/proc: is no procfs")
	}
	return proc, nil
}

// capabilities are the container's, with what the flags add and drop.
func (j *joiner) capabilities() (*specs.LinuxCapabilities, error) {
	e, base := j.spec, j.rec.state.Process.Caps
	switch {
	case e.Privileged:
		return creds.Capabilities(e.CapAdd, e.CapDrop, true)
	case len(e.CapAdd)+len(e.CapDrop) > 0:
		return creds.ChangeCapabilities(base, e.CapAdd, e.CapDrop)
	}
	return &specs.LinuxCapabilities{Bounding: base}, nil
}

func (j *joiner) openStdio() error {
	j.stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if j.spec.Interactive {
		return nil
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	j.stdio[0] = null
	return err
}

// join moves this thread into the container's namespaces, all or none (setns(2) with a pidfd, 5.8).
func (j *joiner) join() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	// A thread that shares its root and working directory with others may not change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	if err := inside.JoinNewKeyring(); err != nil {
		return err
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
	if err := unix.Setns(int(j.pidfd.Fd()), all); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	unix.Umask(int(j.rec.state.Process.Umask))
	return nil
}

func (j *joiner) lookUpUser() error {
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	user := j.spec.User
	if user == "" {
		user = j.rec.state.Process.User
	}
	j.user, err = creds.LookupUser(root, user)
	return err
}

func (j *joiner) hasTerminal() bool { return j.spec.Process.Terminal }

// openConsole makes a terminal on the container's own devpts.
func (j *joiner) openConsole() (err error) {
	if j.pty, err = fs.OpenPty(); err != nil {
		return err
	}
	resizeTo(j.pty.Master)
	j.stdio = [3]*os.File{j.pty.Slave, j.pty.Slave, j.pty.Slave}
	return j.pty.Slave.Chown(int(j.user.UID), -1)
}

func (j *joiner) setRlimits() error {
	return creds.SetRlimits(j.rec.state.Process.Rlimits)
}

func (j *joiner) applyAppArmor() error {
	if j.spec.Privileged {
		return nil
	}
	return lsm.ApplyAppArmor(j.proc, j.rec.state.Process.AppArmor)
}

func (j *joiner) applySELinux() error { return lsm.ApplySELinux(j.proc, j.rec.state.Process.Label) }

// findProgram enters the working directory and looks for the program with the user's eyes. The thread gets
// its own back afterwards: it still has to start the child.
func (j *joiner) findProgram() error {
	cwd := j.spec.Process.Cwd
	if cwd == "" {
		cwd = j.rec.state.Process.Cwd
	}
	j.env = j.environment()
	return creds.AsUser(j.user, func() (err error) {
		if err := program.Enter(cwd); err != nil {
			return err
		}
		j.path, err = program.LookPath(j.spec.Process.Args[0], envValue(j.env, "PATH"))
		return err
	})
}

// environment is the container's with the flags' on top, and what a login would have.
func (j *joiner) environment() []string {
	env := MergeEnv(j.rec.state.Process.Env, j.spec.Process.Env...)
	if !hasEnv(env, "HOME") {
		env = append(env, "HOME="+j.user.Home)
	}
	if j.spec.Process.Terminal && !hasEnv(env, "TERM") {
		env = append(env, "TERM=xterm")
	}
	return env
}

func (j *joiner) dropBounding() error {
	if err := creds.ClearInheritable(); err != nil {
		return err
	}
	return creds.DropBounding(j.caps.Bounding)
}

func (j *joiner) setNoNewPrivs() error {
	if !j.rec.state.Process.NoNewPrivs || j.spec.Privileged {
		return nil
	}
	return creds.SetNoNewPrivs()
}

// start clones the child into the container's cgroup and pid namespace. It takes the user's ids itself, after the clone: a
// thread that had them already may not put a child into the cgroup. Root keeps of its capabilities what the bounding set
// has, anybody else none (capabilities(7)).
func (j *joiner) start() (err error) {
	// What leads to the host isn't shown to the container, not even in a process that it can't look into.
	if err := errors.Join(j.proc.Close(), j.pidfd.Close(), creds.CloseOnExec()); err != nil {
		return err
	}
	sys := &syscall.SysProcAttr{
		Setsid:     true,
		Setctty:    j.pty != nil,
		Credential: &syscall.Credential{Uid: j.user.UID, Gid: j.user.GID, Groups: j.user.Groups},
	}
	switch {
	case j.freezer != nil:
		sys.Ptrace = true // moved into the container's cgroup at its exec
		sys.UseCgroupFD, sys.CgroupFD = true, int(j.freezer.dir.Fd())
		if err := j.freeze(); err != nil {
			return err
		}
	case j.cgroup != nil:
		sys.UseCgroupFD, sys.CgroupFD = true, int(j.cgroup.Fd())
	}
	attr := &syscall.ProcAttr{Env: j.env, Sys: sys, Files: []uintptr{j.stdio[0].Fd(), j.stdio[1].Fd(), j.stdio[2].Fd()}}
	if j.pid, err = syscall.ForkExec(j.path, j.spec.Process.Args, attr); err != nil {
		if j.freezer != nil && errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w, or ptrace(2) is (kernel.yama.ptrace_scope)", err)
		}
		return program.ExecError(j.path, err)
	}
	j.entering.Unlock()
	if err := j.enterFrozen(); err != nil {
		return err
	}
	if j.pty != nil {
		_ = j.pty.Slave.Close()
	}
	if j.pidTo == nil {
		return nil
	}
	if _, err := fmt.Fprint(j.pidTo, j.pid); err != nil {
		_ = unix.Kill(j.pid, unix.SIGKILL)
		_, _ = j.wait()
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}

func (j *joiner) forward() {
	for s := range j.caught.C {
		switch sig := s.(syscall.Signal); sig {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
		case unix.SIGWINCH:
			if j.pty != nil {
				resizeTo(j.pty.Master)
			}
		default:
			_ = unix.Kill(j.pid, sig)
		}
	}
}

func (j *joiner) wait() (int, error) {
	status, err := waitFor(j.pid)
	if err != nil {
		return exitNsinit, fmt.Errorf("wait: %w", err)
	}
	return program.ExitStatus(status), nil
}
