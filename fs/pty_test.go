package fs

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPty(t *testing.T) {
	if !inHost(t) {
		return
	}
	pty, err := NewPty(false)
	must(t, err)
	c := plain(newRootfs(t))
	r, err := build(c, pty)
	must(t, err)
	defer r.Close()
	if pty.Devpts != nil {
		t.Error("the devpts was not taken over")
	}
	checkConsole(t)
	_, err = pty.Slave.WriteString("hello\n")
	must(t, err)
	buf := make([]byte, len("hello\r\n")) // it may come in pieces
	if _, err := io.ReadFull(pty.Master, buf); string(buf) != "hello\r\n" {
		t.Errorf("%q, %v", buf, err)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(pty.Slave.Fd()), &st))
	if st.Gid != 5 || st.Mode != unix.S_IFCHR|0o620 {
		t.Errorf("terminal: group %d, mode %o", st.Gid, st.Mode)
	}
	// A second terminal by the container's own ptmx.
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer master.Close()
	if _, err := os.Stat("/dev/pts/1"); err != nil {
		t.Error(err)
	}
	must(t, pty.Close())
	must(t, pty.Close())
}

func TestLabelIsRefused(t *testing.T) {
	if !inHost(t) {
		return
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("SELinux is on")
	}
	// A kernel without SELinux doesn't know the option: that is an error, not silence.
	if _, err := NewLabeledPty(false, "system_u:object_r:container_file_t:s0:c1,c2"); err == nil {
		t.Error("a context is taken without SELinux")
	}
	c := plain(newRootfs(t))
	c.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
	_, err := build(c, nil)
	if err == nil || !strings.Contains(err.Error(), "context") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestSysctl(t *testing.T) {
	if !inHost(t) {
		return
	}
	r := mustBuild(t, plain(newRootfs(t)))
	must(t, r.WriteSysctl("net.ipv4.ip_forward", "1"))
	must(t, r.WriteSysctl("kernel/hostname", "inside"))
	reads("/proc/sys/net/ipv4/ip_forward", "1\n")(t)
	reads("/proc/sys/kernel/hostname", "inside\n")(t)
	for key, want := range map[string]string{
		"net.ipv4.nothing":    "sysctl net.ipv4.nothing: this kernel or namespace has none of that name",
		"kernel.core_pattern": "belongs to the whole host",
		"net.ipv4":            "sysctl net.ipv4: is a directory",
	} {
		if err := r.WriteSysctl(key, "1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", key, err, want)
		}
	}
	if err := r.WriteSysctl("net.ipv4.ip_forward", "word"); err == nil || !strings.Contains(err.Error(), `write "word": invalid argument`) {
		t.Errorf("%v", err)
	}
}

func TestContextError(t *testing.T) {
	if !inHost(t) {
		return
	}
	_, err := newMount("tmpfs", 0, "size=abc")
	if err == nil || !strings.Contains(err.Error(), "tmpfs: option size=abc: tmpfs: Bad value for 'size': invalid argument") {
		t.Errorf("%v", err)
	}
	if _, err := newMount("nosuchfs", 0); err == nil || !strings.Contains(err.Error(), "this kernel has no file system nosuchfs") {
		t.Errorf("%v", err)
	}
}

// The ways of a user namespace, taken without one.
func TestUsernsWays(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	c.Userns, c.HostNet = true, true
	mustBuild(t, c)
	checkNodes(t)
	wantMount(t, "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/sys/fs/cgroup", "cgroup2", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/dev/null", "devtmpfs", "rw,relatime")
	checkMasked(t, DefaultMaskedPaths())
}

func TestHostNet(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	c.HostNet, c.Cgroup = true, false
	mustBuild(t, c)
	wantMount(t, "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/sys/fs/cgroup", "tmpfs", "ro,nosuid,nodev,noexec,relatime")
}
