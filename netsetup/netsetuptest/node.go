package netsetuptest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A Node is one network namespace on a Host: the host's own, a Peer's, a container's. Commands
// that it runs have the host's other namespaces.
type Node struct {
	Name  string
	host  *Host
	netns *os.File // owned by whoever made the node
}

// Container is the network namespace of process pid as a node, until t ends. pid is as the host counts.
func (h *Host) Container(t testing.TB, pid int) *Node {
	t.Helper()
	f, err := os.Open(h.Path(fmt.Sprintf("/proc/%d/ns/net", pid)))
	if err != nil {
		t.Fatalf("container: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return &Node{Name: fmt.Sprintf("container of %d", pid), host: h, netns: f}
}

// Named is the network namespace that the host has under /run/netns/name as a node, until t ends.
func (h *Host) Named(t testing.TB, name string) *Node {
	t.Helper()
	f, err := os.Open(h.Path("/run/netns/" + name))
	if err != nil {
		t.Fatalf("named namespace: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return &Node{Name: name, host: h, netns: f}
}

// Inode is the namespace's number, as in readlink /proc/PID/ns/net.
func (n *Node) Inode(t testing.TB) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(n.netns.Fd()), &st); err != nil {
		t.Fatalf("%s: fstat: %v", n.Name, err)
	}
	return st.Ino
}

// Do runs f on a thread of its own in the namespace n, and nothing else changed: for sockets, netlink and
// /proc/sys/net. Sockets made there stay there. f must not start threads or goroutines that count on it.
func (n *Node) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%s: setns: %w", n.Name, err)
		}
		return f()
	})
}

// DoInside runs f on a thread of its own in all of the host's namespaces, n's network among them. Paths are the
// host's. f may start processes with os/exec, but no goroutine that counts on the namespaces.
func (n *Node) DoInside(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		return f()
	})
}

// onThread runs f on a locked thread that ends afterwards, since nobody else may have it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread can't end: it would stay parked where it was brought, and /proc/self is what it is in. While
			// this goroutine holds it, another one gets another thread.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// enter moves the calling thread, which must never be used again.
func (n *Node) enter() error {
	// A thread that shares its root and working directory can't change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(n.host.pidfd.Fd()), allNamespaces); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	if n != n.host.Node {
		if err := unix.Setns(int(n.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
	}
	unix.Umask(0o022)
	return nil
}

// Path is PATH of the commands that run on a host.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command prepares a program to be started by RunCmd or Start. Its environment is small and known; it may be changed,
// as may all of the Cmd but SysProcAttr's cgroup.
func (n *Node) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + Path, "HOME=/root", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(n.host.session.Fd()), Setsid: true}
	return cmd
}
