package fs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const containerEnv = "NSINIT_FS_TEST_CONTAINER"

func TestMain(m *testing.M) {
	if name := os.Getenv(containerEnv); name != "" {
		runtime.LockOSThread()
		if err := containers()[name](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// containers are what runs in a process of its own below a test's host.
func containers() map[string]func() error {
	return map[string]func() error{
		"plain":  func() error { return containerOn(nil, nil) },
		"userns": usernsContainer,
		"hold":   hold,
		"moved":  moved,
	}
}

// hold makes a root and waits for its end.
func hold() error {
	if err := containerOn(nil, nil); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// moved makes a root whose /proc and /sys the host renames meanwhile.
func moved() error {
	if err := MakePrivate(); err != nil {
		return err
	}
	r, err := open(containerConfig(), nil)
	if err != nil {
		return err
	}
	if err := r.MountSystem(nil); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	if err := errors.Join(r.Pivot(), r.Restrict()); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc2/interrupts", &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
		return fmt.Errorf("/proc2/interrupts is not masked: %w", err)
	}
	if err := os.WriteFile("/proc2/sys/kernel/hostname", []byte("x"), 0); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("/proc2/sys: %w", err)
	}
	if list, err := os.ReadDir("/sys2/firmware"); err != nil || len(list) > 0 {
		return fmt.Errorf("/sys2/firmware: holds %v, %w", list, err)
	}
	return nil
}

// Who shares the root file system moves the mount points of /proc and /sys away: they are restricted all the
// same.
func TestMovedMountPoints(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	cmd := containerCommand(t, "moved", c)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 200)
	n, _ := out.Read(line)
	if string(line[:n]) != "ready\n" {
		t.Fatalf("%s", line[:n])
	}
	for _, name := range []string{"proc", "sys"} {
		must(t, os.Rename(c.Root+"/"+name, c.Root+"/"+name+"2"))
		must(t, os.Symlink("/tmp", c.Root+"/"+name))
	}
	must(t, in.Close())
	n, _ = out.Read(line)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, line[:n])
	}
}

func containerConfig() *Config {
	c := new(Config)
	if err := json.Unmarshal([]byte(os.Getenv("NSINIT_FS_TEST_CONFIG")), c); err != nil {
		panic(err)
	}
	return c
}

func containerOn(prepared *os.File, pty *Pty) error {
	r, err := buildOn(containerConfig(), pty, prepared)
	if err != nil {
		return err
	}
	return r.Close()
}

func containerCommand(t *testing.T, name string, c *Config) *exec.Cmd {
	t.Helper()
	config, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), containerEnv+"="+name, "NSINIT_FS_TEST_CONFIG="+string(config))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: cloneFlags(nil), Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Nothing that a container mounts reaches a host that shares all its mounts, while it runs and after.
func TestSharedHost(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, os.MkdirAll("/run/source", 0o755))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	before, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, root := range []string{newRootfs(t), ""} {
		c := plain(root)
		c.Mounts = []volumeSpec{bindOn("/run/source", "/srv", "rshared"), tmpfsOn("/srv/inner", "rshared")}
		cmd := containerCommand(t, "hold", c)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line := make([]byte, 200)
		n, _ := out.Read(line)
		if string(line[:n]) != "ready\n" {
			t.Fatalf("%s", line[:n])
		}
		during, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if !bytes.Equal(before, during) {
			t.Errorf("mounts of the host:\n%s\nwere\n%s", during, before)
		}
		must(t, in.Close())
		must(t, cmd.Wait())
	}
}

// usernsContainer gets its root through descriptor 3, and looks at it.
func usernsContainer() error {
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	oob := make([]byte, 64)
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	pty, err := NewPty(true)
	if err != nil {
		return err
	}
	if err := containerOn(os.NewFile(uintptr(fds[0]), "root"), pty); err != nil {
		return err
	}
	return checkUserns()
}

func checkUserns() error {
	var faults []error
	for _, n := range nodes() {
		fd, err := os.OpenFile("/dev/"+n.name, os.O_RDWR, 0)
		if err != nil && n.name != "tty" { // no controlling terminal
			faults = append(faults, err)
		}
		fd.Close()
	}
	for name, uid := range map[string]uint32{"/": 0, "/etc/group": 0, "/dev/pts/0": 0, "/tmp": 0, "/dev": 0} {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil || st.Uid != uid {
			faults = append(faults, fmt.Errorf("%s: owner %d, %w", name, st.Uid, err))
		}
	}
	for _, name := range []string{"/new", "/etc/group", "/tmp/new", "/dev/shm/new"} {
		faults = append(faults, os.WriteFile(name, []byte("x"), 0o644))
	}
	if _, err := os.ReadFile("/etc/shadow"); !errors.Is(err, os.ErrNotExist) {
		faults = append(faults, fmt.Errorf("/etc/shadow: %w", err))
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/interrupts", &st); err != nil || st.Rdev != unix.Mkdev(1, 3) {
		faults = append(faults, fmt.Errorf("/proc/interrupts is not masked: %w", err))
	}
	if err := os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0); !errors.Is(err, unix.EROFS) {
		faults = append(faults, fmt.Errorf("/proc/sys: %w", err))
	}
	return errors.Join(faults...)
}

func TestUserns(t *testing.T) {
	for _, kind := range []string{"overlay", "rootfs", "few-ids", "readonly"} {
		t.Run(kind, func(t *testing.T) {
			if !inHost(t) {
				return
			}
			c := plain("")
			c.Userns, c.Hidden = true, []string{"/etc/shadow"}
			if kind == "rootfs" {
				c.Root = newRootfs(t)
				must(t, os.WriteFile(c.Root+"/etc/group", nil, 0o644))
			}
			size := 65536
			if kind == "few-ids" { // the group of terminals isn't mapped
				size = 1
			}
			runUserns(t, c, size, kind == "readonly")
		})
	}
}

func runUserns(t *testing.T, c *Config, size int, readonly bool) {
	t.Helper()
	c.Readonly = readonly
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
	if c.Root != "" {
		newRootfs(t)
		must(t, os.WriteFile(c.Root+"/etc/group", nil, 0o644))
	}
	ours, theirs := socketPair(t)
	cmd := containerCommand(t, "userns", c)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: 100000, Size: size}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: 100000, Size: size}}
	cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	cmd.SysProcAttr.Credential = &syscall.Credential{}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	must(t, err)
	before := openFiles(t)
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	must(t, err)
	root, err := PrepareUserns(c, userns)
	if c.Root != "" && errors.Is(err, unix.EINVAL) && kernelBefore(6, 3) {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if !strings.Contains(err.Error(), "can't be ID-mapped on this kernel") {
			t.Error(err)
		}
		return // a tmpfs can be ID-mapped from 6.3
	}
	must(t, err)
	_, _, err = ours.WriteMsgUnix([]byte{0}, unix.UnixRights(int(root.Fd())), nil)
	must(t, err)
	must(t, root.Close())
	after, err := os.ReadFile("/proc/thread-self/mountinfo")
	must(t, err)
	if !bytes.Equal(mounts, after) {
		t.Errorf("mounts of the host:\n%s\nwere\n%s", after, mounts)
	}
	if n := len(openFiles(t)) - len(before); n > 0 {
		t.Errorf("%d descriptors are left", n)
	}
	err = cmd.Wait()
	if readonly && strings.Count(out.String(), "read-only file system") == 3 {
		return
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func kernelBefore(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	x, y, _ := parseRelease(unix.ByteSliceToString(u.Release[:]))
	return x < major || x == major && y < minor
}

func socketPair(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	must(t, err)
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "theirs")
}

func TestPrepareUsernsRefuses(t *testing.T) {
	if !inHost(t) {
		return
	}
	if _, err := PrepareUserns(plain(""), nil); err == nil {
		t.Error("no user namespace is needed")
	}
	own, err := os.Open("/proc/self/ns/user")
	must(t, err)
	for _, root := range []string{"", newRootfs(t)} {
		if _, err := PrepareUserns(plain(root), own); err == nil {
			t.Error("the initial user namespace maps owners")
		}
	}
}
