package netsetup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// This is the only file that changes a thread's network namespace.

// A NetNS is an open network namespace. It owns its descriptor until Close.
type NetNS struct{ f *os.File }

// pidfdNetNS is PIDFD_GET_NETWORK_NAMESPACE (6.11). A variable, so that tests force
// the way of older kernels.
var pidfdNetNS uint = 0xff04

// OpenNetNS opens a network namespace by path and refuses anything else that
// lies there: first by the file system, before the kernel could do something
// with a fifo or a device, then by the kind of the namespace.
func OpenNetNS(path string) (*NetNS, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) { // as of a process that ended while it was looked up (proc_ns_get_link in fs/proc/namespaces.c)
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := checkNsfs(fd); err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	// A second look at path could find another file: the descriptor's own link can't.
	again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	return newNetNS(again, path)
}

// newNetNS takes over fd and closes it if it is no network namespace.
func newNetNS(fd int, name string) (*NetNS, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	switch {
	case err != nil:
		err = fmt.Errorf("not a namespace: %w", err)
	case kind != unix.CLONE_NEWNET:
		err = fmt.Errorf("a %s namespace, not a network namespace", nsKind(kind))
	default:
		return &NetNS{f: os.NewFile(uintptr(fd), name)}, nil
	}
	unix.Close(fd)
	return nil, &os.PathError{Op: "open network namespace", Path: name, Err: err}
}

var errNotNsfs = errors.New("not a namespace: neither a file under /proc/PID/ns nor one that ip netns made")

func checkNsfs(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if st.Type != unix.NSFS_MAGIC {
		return errNotNsfs
	}
	return nil
}

func nsKind(kind int) string {
	switch kind {
	case unix.CLONE_NEWNS:
		return "mount"
	case unix.CLONE_NEWPID:
		return "pid"
	case unix.CLONE_NEWUSER:
		return "user"
	case unix.CLONE_NEWUTS:
		return "uts"
	case unix.CLONE_NEWIPC:
		return "ipc"
	case unix.CLONE_NEWCGROUP:
		return "cgroup"
	case unix.CLONE_NEWTIME:
		return "time"
	}
	return fmt.Sprintf("%#x", kind)
}

// ProcessNetNS opens the network namespace of the process pid, which the
// caller holds by pidfd and so can't have been reused. os.ErrProcessDone if it
// has ended.
func ProcessNetNS(pidfd *os.File, pid int) (*NetNS, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	fd, err := unix.IoctlRetInt(int(pidfd.Fd()), pidfdNetNS)
	if err == nil {
		return newNetNS(fd, name)
	}
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	ns, err := OpenNetNS(name)
	if dead := unix.PidfdSendSignal(int(pidfd.Fd()), 0, nil, 0); errors.Is(dead, unix.ESRCH) {
		if err == nil {
			_ = ns.Close()
		}
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	return ns, err
}

// currentNetNS opens the namespace of the calling thread, by way of a socket made in
// it: /proc/self would be the main thread's, and the /proc that is mounted may
// belong to other processes.
func currentNetNS() (*NetNS, error) {
	const name = "own network namespace"
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(s)
	fd, err := unix.IoctlRetInt(s, unix.SIOCGSKNS) // 4.10; the descriptor is close-on-exec
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return newNetNS(fd, name)
}

// File returns the descriptor, still owned by n.
func (n *NetNS) File() *os.File { return n.f }

// Close closes the descriptor.
func (n *NetNS) Close() error { return n.f.Close() }

func (n *NetNS) fd() int { return int(n.f.Fd()) }

// Inode is the number that tells n apart from all namespaces that live.
func (n *NetNS) Inode() (uint64, error) { return n.id() }

// id tells namespaces apart: the inode, unique among those that live.
func (n *NetNS) id() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd(), &st); err != nil {
		return 0, fmt.Errorf("%s: %w", n.f.Name(), err)
	}
	return st.Ino, nil
}

// Do runs f on a new locked thread inside n and waits for it. The thread dies
// afterwards, so that nothing can ever run on it in the wrong namespace. f
// must not start goroutines that count on n.
func (n *NetNS) Do(f func() error) error {
	done := make(chan error, 1)
	go n.doAndDie(f, done)
	return <-done
}

func (n *NetNS) doAndDie(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread can't die: it would stay, parked, and /proc/PID/ns/net is its
		// namespace. While this goroutine holds it, another one gets another thread.
		defer runtime.UnlockOSThread()
		done <- n.Do(f)
		return
	}
	// No unlock: the runtime ends the thread of a goroutine that returns locked.
	if err := netns.Set(netns.NsHandle(n.fd())); err != nil {
		done <- fmt.Errorf("enter network namespace %s: %w", n.f.Name(), err)
		return
	}
	done <- f()
}

// inNewNetNS runs f on a new locked thread in a network namespace of its own, which ends
// with the thread.
func inNewNetNS(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() { // as in doAndDie
			defer runtime.UnlockOSThread()
			done <- inNewNetNS(f)
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// DoHere runs f on the calling thread, which the caller has locked, inside n, and
// brings the thread back; it ends the process if the kernel refuses the way
// back, since its caller's next step would hit the wrong namespace. It is for
// starting a child with a parent-death signal, which belongs to the thread.
func (n *NetNS) DoHere(f func() error) error {
	// Locked by this call, too: what the runtime makes of threads meanwhile comes from a thread of its own, and not from
	// this one with its namespace. It doesn't do that for a thread that only an init function holds.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := currentNetNS()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := netns.Set(netns.NsHandle(n.fd())); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.f.Name(), err)
	}
	defer func() {
		if err := netns.Set(netns.NsHandle(home.fd())); err != nil {
			fmt.Fprintf(os.Stderr, "nsinit: return to the host's network namespace: %v\n", err)
			os.Exit(125) //nolint:forbidigo // as documented: no caller may go on in the wrong namespace
		}
	}()
	return f()
}
