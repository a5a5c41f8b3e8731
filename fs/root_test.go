package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plain is the default container on a rootfs.
func plain(root string) *Config {
	return &Config{Root: root, Cgroup: true, MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths()}
}

func TestDefaultMounts(t *testing.T) {
	if !inHost(t) {
		return
	}
	mustBuild(t, plain(newRootfs(t)))
	wantMount(t, "/", "tmpfs", "rw,nodev,relatime")
	wantMount(t, "/proc", "proc", "rw,nosuid,nodev,noexec,relatime")
	wantMount(t, "/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/sys/fs/cgroup", "cgroup2", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/dev", "tmpfs", "rw,nosuid")
	wantMount(t, "/dev/pts", "devpts", "rw,nosuid,noexec,relatime")
	wantMount(t, "/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime")
	wantMount(t, "/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec,relatime")
	if _, _, super := mountedAt(t, "/dev/shm"); !strings.Contains(super, "size=65536k") {
		t.Errorf("/dev/shm: %s, want 64 MiB", super)
	}
	if _, _, super := mountedAt(t, "/dev/pts"); super != "rw,gid=5,mode=620,ptmxmode=666" {
		t.Errorf("/dev/pts: %s", super)
	}
	if cwd, err := os.Getwd(); cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
}

func TestDevices(t *testing.T) {
	if !inHost(t) {
		return
	}
	mustBuild(t, plain(newRootfs(t)))
	checkNodes(t)
	entries, err := os.ReadDir("/dev")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "core" })
	want := "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("/dev holds %s\nwant %s", got, want)
	}
	for link, want := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0"} {
		if got, err := os.Readlink("/dev/" + link); got != want {
			t.Errorf("/dev/%s leads to %q, %v", link, got, err)
		}
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir("/dev/pts"); err != nil || len(list) != 1 {
		t.Errorf("/dev/pts holds %v, %v: the host's terminals?", list, err)
	}
}

func checkNodes(t *testing.T) {
	t.Helper()
	for _, n := range nodes() {
		var st unix.Stat_t
		must(t, unix.Lstat("/dev/"+n.name, &st))
		if st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(n.major, n.minor) || st.Uid != 0 {
			t.Errorf("/dev/%s: mode %o, device %x, owner %d", n.name, st.Mode, st.Rdev, st.Uid)
		}
	}
}

func TestRestrict(t *testing.T) {
	if !inHost(t) {
		return
	}
	mustBuild(t, plain(newRootfs(t)))
	for _, name := range DefaultReadonlyPaths() {
		var st unix.Statfs_t
		err := unix.Statfs(name, &st)
		if err == nil && st.Flags&unix.ST_RDONLY == 0 {
			t.Errorf("%s can be written", name)
		}
	}
	if err := os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to /proc/sys: %v", err)
	}
	if err := os.WriteFile("/sys/kernel/profiling", []byte("0"), 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to /sys: %v", err)
	}
	checkMasked(t, DefaultMaskedPaths())
}

func checkMasked(t *testing.T, patterns []string) {
	t.Helper()
	masked := 0
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		must(t, err)
		for _, name := range names {
			masked++
			checkMask(t, name)
		}
	}
	if masked == 0 {
		t.Error("nothing is masked")
	}
}

func checkMask(t *testing.T, name string) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(name, &st))
	if !isDir(st.Mode) {
		if st.Rdev != unix.Mkdev(1, 3) {
			t.Errorf("%s: device %x, want that of /dev/null", name, st.Rdev)
		}
		return
	}
	var fsst unix.Statfs_t
	must(t, unix.Statfs(name, &fsst))
	list, err := os.ReadDir(name)
	if err != nil || len(list) != 0 || fsst.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("%s: holds %v, %v, flags %x", name, list, err, fsst.Flags)
	}
}

func TestMaskIsFatal(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	c.MaskedPaths = []string{"/nothing", "/etc/hosts/nothing", "/proc/self/root"}
	must(t, os.WriteFile(c.Root+"/etc/hosts", nil, 0o644))
	if _, err := build(c, nil); !errors.Is(err, unix.ELOOP) || !strings.Contains(err.Error(), "masked path /proc/self/root") {
		t.Errorf("a magic link: %v", err)
	}
}

func TestPrivileged(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	c.Privileged = true
	mustBuild(t, c)
	wantMount(t, "/sys", "sysfs", "rw,nosuid,nodev,noexec,relatime")
	wantMount(t, "/sys/fs/cgroup", "cgroup2", "rw,nosuid,nodev,noexec,relatime")
	must(t, os.WriteFile("/proc/sys/kernel/hostname", []byte("inside"), 0))
	var st unix.Stat_t
	must(t, unix.Stat("/proc/interrupts", &st))
	if st.Rdev == unix.Mkdev(1, 3) {
		t.Error("/proc/interrupts is masked")
	}
}

func TestReadonlyRoot(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain(newRootfs(t))
	c.Readonly = true
	c.Mounts = []volumeSpec{tmpfsOn("/data/deep"), bindOn("/run/source", "/volume")}
	c.Files = []File{{Path: "/etc/hosts", Content: []byte("x")}}
	must(t, os.MkdirAll("/run/source", 0o755))
	must(t, os.MkdirAll(c.Root+"/sub/inner", 0o755))
	must(t, unix.Mount("sub", c.Root+"/sub", "tmpfs", 0, ""))
	must(t, os.Mkdir(c.Root+"/sub/inner", 0o755))
	must(t, unix.Mount("inner", c.Root+"/sub/inner", "tmpfs", 0, ""))
	mustBuild(t, c)
	for _, name := range []string{"/x", "/etc/x", "/etc/hosts", "/sub/x", "/sub/inner/x"} {
		if err := os.WriteFile(name, []byte("x"), 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write %s: %v", name, err)
		}
	}
	for _, name := range []string{"/data/deep/x", "/volume/x", "/dev/shm/x"} {
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func TestReadonlyPrivateParts(t *testing.T) {
	if !inHost(t) {
		return
	}
	// Files on a root that can be written can be written too.
	c := plain(newRootfs(t))
	c.Files = []File{{Path: "/etc/hosts", Content: []byte("x"), Mode: 0o600}}
	mustBuild(t, c)
	must(t, os.WriteFile("/etc/hosts", []byte("mine"), 0))
	var st unix.Stat_t
	must(t, unix.Stat("/etc/hosts", &st))
	if st.Mode != unix.S_IFREG|0o600 {
		t.Errorf("mode %o", st.Mode)
	}
}

func TestOldRootIsGone(t *testing.T) {
	for _, name := range []string{"pivot", "move"} {
		t.Run(name, func(t *testing.T) {
			if !inHost(t) {
				return
			}
			c := plain(newRootfs(t))
			c.NoPivot = name == "move"
			must(t, os.WriteFile("/run/secret", nil, 0o600))
			mustBuild(t, c)
			checkEscape(t)
		})
	}
}

// checkEscape tries what a chroot can be left by, and looks for mounts of the old root.
func checkEscape(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(data), " /run ") {
		t.Errorf("mounts of the host are left:\n%s", data)
	}
	must(t, os.Mkdir("/tmp/jail", 0o755))
	must(t, unix.Chroot("/tmp/jail"))
	must(t, unix.Chdir("../../../../../../../.."))
	for _, name := range []string{"run/secret", "../run/secret", "usr", "home"} {
		if _, err := os.Lstat(name); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s of the host is in reach: %v", name, err)
		}
	}
}

func TestDescriptors(t *testing.T) {
	for _, root := range []string{"rootfs", "overlay", "fails"} {
		t.Run(root, func(t *testing.T) {
			if !inHost(t) {
				return
			}
			c := plain(newRootfs(t))
			c.Files = []File{{Path: "/etc/hosts"}}
			c.Mounts = []volumeSpec{bindOn("/etc", "/tmp/etc"), tmpfsOn("/tmp/t")}
			switch root {
			case "overlay":
				c.Root, c.Hidden, c.Readonly = "", []string{"/root", "/etc/shadow", "/etc/ssh/*"}, true
			case "fails":
				must(t, os.Symlink("/tmp", c.Root+"/link"))
				c.Mounts = append(c.Mounts, bindOn("/etc/passwd", "/link"))
			}
			before := openFiles(t)
			r, err := build(c, nil)
			if (err != nil) != (root == "fails") {
				t.Fatal(err)
			}
			if r != nil {
				for fd, name := range openFiles(t) {
					flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
					if _, old := before[fd]; !old && flags&unix.FD_CLOEXEC == 0 {
						t.Errorf("descriptor %d, %s, would be inherited", fd, name)
					}
				}
				must(t, r.Close())
				must(t, r.Close())
			}
			for fd, name := range openFiles(t) {
				if _, old := before[fd]; !old {
					t.Errorf("descriptor %d, %s, is left", fd, name)
				}
			}
		})
	}
}

// openFiles lists the process's descriptors and what they are.
func openFiles(t *testing.T) map[int]string {
	t.Helper()
	found := map[int]string{}
	for fd := range 256 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			found[fd], _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		}
	}
	return found
}

func TestRootDescriptors(t *testing.T) {
	if !inHost(t) {
		return
	}
	r := mustBuild(t, plain(newRootfs(t)))
	var dir, root unix.Stat_t
	must(t, unix.Fstat(int(r.Dir().Fd()), &dir))
	must(t, unix.Stat("/", &root))
	if dir.Dev != root.Dev || dir.Ino != root.Ino {
		t.Error("Dir is not the root")
	}
	// Proc is its own, whatever lies on /proc.
	must(t, unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	fd, err := openAt2(int(r.Proc().Fd()), "1/stat", unix.O_RDONLY, unix.RESOLVE_BENEATH)
	must(t, err)
	closeFD(fd)
}
