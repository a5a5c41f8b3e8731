package fs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// throwaway is the default container without a root file system.
func throwaway(t *testing.T) *Config {
	t.Helper()
	c := plain("")
	c.Hidden = []string{"/etc/shadow", "/root", "/etc/pa??wd", "/nothing", "/opt/*", "/etc/link/x"}
	c.Files = []File{{Path: "/etc/hosts", Content: []byte("made")}}
	return c
}

func bindSelf(t *testing.T, name string) {
	t.Helper()
	must(t, unix.Mount(name, name, "", unix.MS_BIND, ""))
}

func TestOverlay(t *testing.T) {
	if !inHost(t) {
		return
	}
	var before unix.Stat_t
	must(t, unix.Stat("/usr", &before))
	bindSelf(t, "/usr/lib")   // a disk of its own, as far as the kernel is concerned
	bindSelf(t, "/etc/group") // a file can be no layer
	must(t, os.WriteFile("/run/state", nil, 0o644))
	must(t, os.WriteFile("/tmp/state", nil, 0o644))
	mustBuild(t, throwaway(t))
	wantMount(t, "/", "overlay", "rw,nodev,relatime")
	wantMount(t, "/usr/lib", "overlay", "rw,nodev,relatime")
	if options, fstype, _ := mountedAt(t, "/etc/group"); fstype == "overlay" || !strings.HasPrefix(options, "ro,nodev") {
		t.Errorf("/etc/group: %s %s", options, fstype)
	}
	checkThrowaway(t)
	for _, name := range []string{"/usr/x", "/usr/lib/x", "/etc/x"} {
		must(t, os.WriteFile(name, []byte("x"), 0o644))
	}
	var st unix.Stat_t
	must(t, unix.Stat("/usr", &st))
	if st.Mode != before.Mode || st.Uid != before.Uid {
		t.Errorf("/usr: mode %o owner %d", st.Mode, st.Uid)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(data), "lowerdir=/") || strings.Contains(string(data), " /l0 ") {
		t.Errorf("the host's paths are told:\n%s", data)
	}
}

// checkThrowaway looks for what must not, and what must, be seen.
func checkThrowaway(t *testing.T) {
	t.Helper()
	for _, name := range []string{"/etc/shadow", "/etc/passwd"} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat("/etc/group"); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]uint32{"/root": 0o700, "/run": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777} {
		list, err := os.ReadDir(name)
		if err != nil || len(list) > 0 {
			t.Errorf("%s holds %v, %v", name, list, err)
		}
		var st unix.Stat_t
		must(t, unix.Stat(name, &st))
		if st.Mode != unix.S_IFDIR|mode || st.Uid != 0 {
			t.Errorf("%s: mode %o, owner %d", name, st.Mode, st.Uid)
		}
		must(t, os.WriteFile(name+"/mine", nil, 0o644))
	}
	reads("/etc/hosts", "made")(t)
	checkNodes(t)
}

func TestOverlayLeavesHost(t *testing.T) {
	if !inHost(t) {
		return
	}
	name := "/etc/" + "nsinit-test-overlay"
	t.Cleanup(func() { os.Remove(name) })
	host, err := unix.Open("/etc", unix.O_PATH, 0)
	must(t, err)
	mustBuild(t, throwaway(t))
	must(t, os.WriteFile(name, nil, 0o644))
	must(t, os.RemoveAll("/etc/group"))
	var st unix.Stat_t
	if err := unix.Fstatat(host, "nsinit-test-overlay", &st, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("written to the host: %v", err)
	}
	must(t, unix.Fstatat(host, "group", &st, 0))
}

func TestOverlayReadonly(t *testing.T) {
	if !inHost(t) {
		return
	}
	bindSelf(t, "/usr/lib")
	c := throwaway(t)
	c.Readonly = true
	c.Mounts = []volumeSpec{tmpfsOn("/new/place")}
	mustBuild(t, c)
	for _, name := range []string{"/x", "/usr/lib/x", "/etc/hosts", "/tmp/x"} {
		if err := os.WriteFile(name, nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("write %s: %v", name, err)
		}
	}
	must(t, os.WriteFile("/new/place/x", nil, 0o644))
}

// Unmounting everything brings nothing hidden to light.
func TestOverlayPrivileged(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := throwaway(t)
	c.Privileged = true
	mustBuild(t, c)
	for _, name := range []string{"/etc/shadow", "/root", "/etc/hosts", "/dev/shm", "/dev/mqueue", "/dev/pts", "/dev", "/tmp"} {
		unix.Unmount(name, unix.MNT_DETACH)
	}
	if _, err := os.Lstat("/etc/shadow"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if list, err := os.ReadDir("/root"); err != nil || len(list) > 0 {
		t.Errorf("/root holds %v, %v", list, err)
	}
}

// A hidden mount point hides the mount, and what is below it.
func TestOverlayHidesMount(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, unix.Mount("/etc/passwd", "/etc/group", "", unix.MS_BIND, ""))
	c := throwaway(t)
	c.Hidden = []string{"/etc/group"}
	mustBuild(t, c)
	if _, err := os.Lstat("/etc/group"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestMaskHidden(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, MakePrivate())
	c := plain("")
	r, err := open(c, nil)
	must(t, err)
	defer r.Close()
	c.Hidden = []string{"/etc/shadow", "/etc/pass*", "/root", "/nothing"} // too late for the overlay
	must(t, r.MountSystem(nil))
	must(t, r.Pivot())
	checkMask(t, "/etc/shadow")
	checkMask(t, "/etc/passwd")
	if list, err := os.ReadDir("/root"); err != nil || len(list) > 0 {
		t.Errorf("/root holds %v, %v", list, err)
	}
}

func TestHiddenVolumeIsShown(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := throwaway(t)
	c.Mounts = []volumeSpec{bindOn("/etc/shadow", "/etc/shadow", "ro")}
	want, err := os.ReadFile("/etc/shadow")
	must(t, err)
	mustBuild(t, c)
	if got, err := os.ReadFile("/etc/shadow"); string(got) != string(want) {
		t.Errorf("the user's own volume is hidden: %v", err)
	}
}

// A host whose root is an overlay, as in a container; and one whose root can't be a lower layer once more.
func TestOverlayOnOverlay(t *testing.T) {
	for _, depth := range []string{"one", "two"} {
		t.Run(depth, func(t *testing.T) {
			if !inHost(t) {
				return
			}
			mustBuild(t, plain(""))
			if depth == "two" {
				mustBuild(t, plain(""))
				_, err := build(plain(""), nil)
				if err == nil || !strings.Contains(err.Error(), "this host's root can't be overlaid") ||
					!strings.Contains(err.Error(), "--rootfs") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
				return
			}
			mustBuild(t, throwaway(t))
			checkThrowaway(t)
		})
	}
}

func TestOverlayNoPivot(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := throwaway(t)
	c.NoPivot = true
	bindSelf(t, "/usr/lib")
	mustBuild(t, c)
	checkThrowaway(t)
	wantMount(t, "/usr/lib", "overlay", "rw,nodev,relatime")
}

func TestUsernsNeedsPrepared(t *testing.T) {
	if !inHost(t) {
		return
	}
	c := plain("")
	c.Userns = true
	if _, err := build(c, nil); err == nil || !strings.Contains(err.Error(), "PrepareUserns") {
		t.Errorf("%v", err)
	}
}
