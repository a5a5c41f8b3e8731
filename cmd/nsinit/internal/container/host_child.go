package container

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/inside"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/netsetup/gate"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const childNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// startChild clones the init into its namespaces, from a binary that can't be written, into its cgroup. The kernel kills it
// when this thread ends; for a detached container the init takes that back as its last step.
func (h *host) startChild() error {
	if h.spec.joins() {
		if err := h.openJoined(); err != nil {
			return err
		}
	}
	conn, child, err := wire.Pair()
	if err != nil {
		return err
	}
	h.conn = conn
	defer child.Close()
	exe, err := openSelf(h.emptyDir())
	if err != nil {
		return err
	}
	h.exe = exe
	stdio, err := h.stdio()
	if err != nil {
		return err
	}
	defer stdio.close()
	pidfd := -1
	attr := &syscall.ProcAttr{
		// One processor and no collector: the init is a list of system calls.
		Env:   append([]string{"GOMAXPROCS=1", "GOGC=off"}, gate.Env()...),
		Files: []uintptr{stdio.files[0].Fd(), stdio.files[1].Fd(), stdio.files[2].Fd(), child.Fd()},
		Sys:   h.sysProcAttr(&pidfd),
	}
	if h.hasNetworks() {
		h.planned = beside(h.planNetworks) // while the kernel makes the namespaces
	}
	// Not os.StartProcess: it starts a child of its own first, to see whether pidfds work.
	start := func() (err error) {
		h.pid, err = syscall.ForkExec(exe.path(), []string{inside.Argv0}, attr)
		return err
	}
	if h.netns != nil { // joins one that exists: born in it
		err = h.netns.DoHere(start)
	} else {
		err = start()
	}
	if err != nil {
		return startError(err)
	}
	h.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	h.signals.watch(h.pidfd)
	return nil
}

func (h *host) sysProcAttr(pidfd *int) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Cloneflags: childNamespaces, Pdeathsig: unix.SIGKILL, PidFD: pidfd}
	if !h.spec.HostNet && h.netns == nil {
		sys.Cloneflags |= unix.CLONE_NEWNET
	}
	if h.cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(h.cgroup.Fd())
	}
	if h.spec.userns() {
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.UidMappings = sysIDMap(h.spec.OCI.Linux.UIDMappings)
		sys.GidMappings = sysIDMap(h.spec.OCI.Linux.GIDMappings)
		sys.GidMappingsEnableSetgroups = true
		sys.Credential = &syscall.Credential{}
	}
	return sys
}

func sysIDMap(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)}
	}
	return out
}

// startError says which limit stands behind clone(2)'s errno.
func startError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("clone: %w: a limit of user.max_*_namespaces is reached; raise it with sysctl", err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("clone: %w: the limit of processes is reached (ulimit -u, pids.max)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("clone: %w: new namespaces need root", err)
	}
	return fmt.Errorf("clone: %w", err)
}

// stdioFiles are the child's first three descriptors.
type stdioFiles struct {
	files [3]*os.File
	null  *os.File
}

func (s *stdioFiles) close() {
	if s.null != nil {
		_ = s.null.Close()
	}
}

// stdio hands the caller's own descriptors down: nothing is copied, so nothing can be lost. Without -i the
// program reads nothing; with a terminal the init replaces all three.
func (h *host) stdio() (s stdioFiles, err error) {
	s.files = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if h.spec.Interactive && !h.spec.OCI.Process.Terminal {
		return s, nil
	}
	s.null, err = os.OpenFile("/dev/null", os.O_RDWR, 0)
	s.files[0] = s.null
	if h.spec.OCI.Process.Terminal {
		s.files[1] = s.null
	}
	return s, err
}

// wait waits for the init's end, reaps it, and returns its status; ok is false if it still runs after the
// given time. A negative time waits for ever. Only the main goroutine calls it: one of its own would cost a start two thread switches
// and a thread.
func (h *host) wait(patience time.Duration) (status unix.WaitStatus, ok bool) {
	if h.ended {
		return h.status, true
	}
	if !readable(h.pidfd, patience) {
		return 0, false
	}
	h.status, _ = waitFor(h.pid)
	h.ended = true
	return h.status, true
}

// waitFor waits for a change of a child's: its end, or a stop of one that is traced.
func waitFor(pid int) (status unix.WaitStatus, err error) {
	for {
		_, err = unix.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return status, err
		}
	}
}

// readable waits until a pidfd says that its process has ended.
func readable(pidfd *os.File, patience time.Duration) bool {
	deadline := time.Now().Add(patience)
	for {
		left := -1
		if patience >= 0 {
			left = int(max(0, time.Until(deadline)).Milliseconds())
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}, left)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// childError says that the init died, where that is why err came.
func (h *host) childError(err error) error {
	status, ended := h.wait(time.Second)
	switch {
	case !ended:
		return err
	case status.Signaled():
		return fmt.Errorf("init: was killed by %s before it ran the program", status.Signal())
	}
	return fmt.Errorf("init: ended with %d before it ran the program", status.ExitStatus())
}

func (h *host) endChild() error {
	h.closeExe()
	return errors.Join(h.killChild(), h.closeNetworks())
}

// closeExe lets go of what the init was executed from.
func (h *host) closeExe() {
	if h.exe != nil {
		h.exe.Close()
		h.exe = nil
	}
}

const killPatience = 10 * time.Second

// killChild ends the init, if it still runs, and all with it, and waits for its end.
func (h *host) killChild() error {
	if h.conn != nil {
		_ = h.conn.Close()
	}
	if h.pidfd == nil {
		return nil
	}
	defer func() {
		_ = h.pidfd.Close()
		h.pidfd = nil
	}()
	h.signals.pidfd.Store(0)
	if h.ended {
		return nil
	}
	_ = unix.PidfdSendSignal(int(h.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if _, ended := h.wait(killPatience); !ended {
		return h.leaves(fmt.Errorf("process %d does not end after SIGKILL", h.pid))
	}
	return nil
}

// prepareRoot builds the root here for a container in a user namespace, which could not make the overlay
// itself, with the ids mapped.
func (h *host) prepareRoot() error {
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", h.pid))
	if err != nil {
		return err
	}
	defer userns.Close()
	cfg := h.spec.fsConfig()
	h.root, err = fs.PrepareUserns(&cfg, userns)
	return err
}
