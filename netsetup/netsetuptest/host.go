package netsetuptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Host is a machine of a test's own. Its Node is the machine's own network namespace.
type Host struct {
	*Node

	holder  *exec.Cmd
	stop    io.Closer // the holder ends with it
	pidfd   *os.File
	cgroup  string // its root, as the machine names it
	session *os.File
	mounts  []string // as they were when it was made
	dirty   bool     // what is left behind at the end is meant to be
	mu      sync.Mutex
	peers   map[string]*Peer // by name
}

var hostCount atomic.Int32

// NewHost makes a host, and removes it when t ends. It fails t if anything that ran there left
// processes, mounts, cgroups or named network namespaces behind (see Dirty), and skips t without root.
func NewHost(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	h, err := newHost()
	if err != nil {
		t.Fatalf("test host: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		if t.Failed() || t.Skipped() {
			h.dirty = true // one failure at a time
		}
		if !h.dirty {
			for _, left := range h.leftovers(t) {
				t.Errorf("left behind on the host: %s", left)
			}
		}
		if err := h.remove(); err != nil {
			t.Errorf("test host: %v", err)
		}
	})
	return h
}

// Dirty says that the test leaves things behind on purpose. They go with the host.
func (h *Host) Dirty() { h.dirty = true }

func newHost() (h *Host, err error) {
	h = &Host{peers: map[string]*Peer{}}
	h.Node = &Node{Name: "host", host: h}
	defer func() {
		if err != nil {
			_ = h.remove()
		}
	}()
	if err := h.makeCgroup(); err != nil {
		return nil, err
	}
	if err := h.startHolder(); err != nil {
		return nil, err
	}
	if h.session, err = os.OpenFile(filepath.Join(h.cgroup, sessionCgroup), unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	if h.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", h.Pid())); err != nil {
		return nil, err
	}
	h.mounts, err = h.mountLines()
	return h, err
}

// Pid is the holder's process, as the machine counts.
func (h *Host) Pid() int { return h.holder.Process.Pid }

// Path is where the test finds a file of the host, until the test ends.
func (h *Host) Path(path string) string { return fmt.Sprintf("/proc/%d/root%s", h.Pid(), path) }

// Cgroup is the root of the host's cgroup namespace, where the test finds it.
func (h *Host) Cgroup() string { return h.cgroup }

func (h *Host) makeCgroup() error {
	root, err := unifiedMount()
	if err != nil {
		return err
	}
	sweepOnce.Do(func() { sweepCgroups(root) })
	h.cgroup = filepath.Join(root, fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), hostCount.Add(1)))
	return os.Mkdir(h.cgroup, 0o755)
}

const allNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// startHolder executes this binary again in new namespaces, in the host's cgroup from birth: the
// new cgroup namespace has its root there.
func (h *Host) startHolder() error {
	dir, err := os.OpenFile(h.cgroup, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	pidfd := -1
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"host"}
	cmd.Env = []string{holderEnv + "=" + filepath.Base(h.cgroup), "GOMAXPROCS=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: allNamespaces, UseCgroupFD: true, CgroupFD: int(dir.Fd()), PidFD: &pidfd, Setsid: true,
	}
	stop, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("holder: %w", err)
	}
	h.holder, h.stop, h.pidfd = cmd, stop, os.NewFile(uintptr(pidfd), "pidfd")
	line, err := bufio.NewReader(said).ReadString('\n')
	switch line {
	case "ready\n":
		return nil
	case "":
		return fmt.Errorf("holder: %w", err)
	}
	return fmt.Errorf("holder: %s", strings.TrimSpace(line))
}

// remove ends the holder, and with it all processes, and removes the cgroups.
func (h *Host) remove() error {
	var errs []error
	if h.holder != nil {
		_ = h.stop.Close()
		_ = h.holder.Process.Kill() // end-of-file would do; this is for one that hangs
		_ = h.holder.Wait()
		_ = h.pidfd.Close()
	}
	for _, p := range h.peers {
		errs = append(errs, p.netns.Close())
	}
	for _, f := range []*os.File{h.session, h.netns} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if h.cgroup != "" {
		errs = append(errs, Retry(10*time.Second, func() error { return removeCgroups(h.cgroup) }))
	}
	return errors.Join(errs...)
}

// removeCgroups removes dir and all below it. A cgroup is busy until its last process was reaped.
func removeCgroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeCgroups(filepath.Join(dir, e.Name())))
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("rmdir: %s: %w", dir, err))
	}
	return errors.Join(errs...)
}

var sweepOnce sync.Once

// sweepCgroups removes the empty cgroups of test processes that were killed.
func sweepCgroups(root string) {
	dirs, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, dir := range dirs {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		pid, err := strconv.Atoi(number)
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			_ = removeCgroups(dir) // one that is in use stays
		}
	}
}

// OwnEtc gives the host a copy of the machine's /etc, which the test may change. It is a mount, and goes with the host or by
// `umount /etc`.
func (h *Host) OwnEtc(t testing.TB) {
	t.Helper()
	h.Run(t, "sh", "-c", "mkdir /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc").OK(t)
}
