package netsetup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

func TestOpenNetNSRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir: "not a namespace", file: "not a namespace", fifo: "not a namespace", "/dev/zero": "not a namespace",
		filepath.Join(dir, "none"): "no such file", "/proc/self/ns/uts": "a uts namespace, not a network namespace",
		"/proc/self/ns/pid": "a pid namespace", "/proc/0/ns/net": "no such file",
	} {
		ns, err := OpenNetNS(path)
		if err == nil {
			_ = ns.Close()
		}
		wantError(t, err, path, want)
	}
	ns, err := OpenNetNS("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "close", ns.Close(), nil)
}

func TestProcessNetNS(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a network namespace of its own")
	}
	host := netsetuptest.NewHost(t)
	want := host.Inode(t)
	pidfd, err := unix.PidfdOpen(host.Pid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	native := pidfdNetNS
	defer func() { pidfdNetNS = native }()
	for _, pidfdNetNS = range []uint{native, 0} { // 0: as before 6.11
		ns, err := ProcessNetNS(f, host.Pid())
		if err != nil {
			t.Fatal(err)
		}
		got, err := ns.id()
		if err != nil || got != want {
			t.Errorf("ioctl %#x: namespace %d, %v, want %d", pidfdNetNS, got, err, want)
		}
		_ = ns.Close()
	}
	dead := exec.Command("true")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	old, err := unix.PidfdOpen(dead.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := os.NewFile(uintptr(old), "pidfd")
	defer g.Close()
	_ = dead.Wait()
	for _, pidfdNetNS = range []uint{native, 0} {
		// The pid of a process that lives: as if it had been reused.
		if _, err := ProcessNetNS(g, os.Getpid()); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("ioctl %#x: %v, want %v", pidfdNetNS, err, os.ErrProcessDone)
		}
	}
}

// TestThreadsStayHome looks at every thread of this process after many visits.
func TestThreadsStayHome(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	ns, err := OpenNetNS("/proc/" + strconv.Itoa(host.Pid()) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	want, err := os.Readlink("/proc/" + strconv.Itoa(host.Pid()) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	look := func() error {
		got, err := os.Readlink("/proc/thread-self/ns/net")
		if err == nil && got != want {
			err = errors.New("in " + got + ", want " + want)
		}
		return err
	}
	boom := errors.New("boom")
	for _, err := range together(50, func(i int) error {
		if err := ns.Do(func() error { return boom }); !errors.Is(err, boom) {
			return err
		}
		if err := ns.Do(look); err != nil {
			return err
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, _ := os.Readlink("/proc/thread-self/ns/net")
		if err := ns.DoHere(look); err != nil {
			return err
		}
		if err := ns.DoHere(func() error { return boom }); !errors.Is(err, boom) {
			return err
		}
		if now, _ := os.Readlink("/proc/thread-self/ns/net"); now != home {
			return errors.New("not home again: " + now)
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	main, err := os.Readlink("/proc/self/ns/net")
	if err != nil || main == want {
		t.Errorf("main thread is in %s, %v", main, err)
	}
}

func TestBindName(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c, other := newContainer(t, host, "web"), newContainer(t, host, "db")
	var o Object
	record := func(rec Object) error { o = rec; return nil }
	bind := func(ns *NetNS, name string) error {
		return host.DoInside(func() error { return ns.BindName(name, "web", record) })
	}
	undo := func(o Object) error {
		return host.DoInside(func() error { return Undo(context.Background(), nil, o) })
	}
	c.Run(t, "ip", "link", "add", "mark", "type", "bridge").OK(t)
	if err := bind(c.ns, "lab"); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "record", o.Kind+" "+o.Name+" "+o.Owner, "netns-name lab web")
	host.Run(t, "ip", "netns", "exec", "lab", "ip", "link", "show", "mark").OK(t)
	if err := bind(other.ns, "lab"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("taken name: %v", err)
	}
	for range 2 {
		if err := undo(o); err != nil {
			t.Error(err)
		}
		if r := host.Run(t, "ip", "netns", "exec", "lab", "true"); r.Code == 0 {
			t.Error("the name is still there")
		}
	}
	if _, err := os.Stat(host.Path("/run/netns/lab")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file is left: %v", err)
	}

	// Somebody else's namespace and file under the name stay.
	host.Run(t, "ip", "netns", "add", "lab").OK(t)
	wantEqual(t, "foreign namespace", undo(o), nil)
	host.Run(t, "ip", "netns", "exec", "lab", "true").OK(t)
	host.Run(t, "ip", "netns", "del", "lab").OK(t)
	host.Run(t, "sh", "-c", "echo mine > /run/netns/lab").OK(t)
	wantEqual(t, "foreign file", undo(o), nil)
	host.Run(t, "rm", "/run/netns/lab").OK(t)

	// What a BindName that was killed half-way leaves.
	host.Run(t, "sh", "-c", "umask 777; : > /run/netns/lab").OK(t)
	wantEqual(t, "half made", undo(o), nil)
	if _, err := os.Stat(host.Path("/run/netns/lab")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half-made file is left: %v", err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "-x", "a b", "\x1b"} {
		wantError(t, bind(c.ns, name), "for ip netns")
		wantError(t, undo(Object{Kind: "netns-name", Name: name}), "netns name")
	}
}
