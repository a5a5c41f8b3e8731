package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const inHostEnv = "NSINIT_FS_TEST_HOST"

// inHost runs the calling test in a process of its own, that is alone on a "host" of its own: new mount, pid,
// network, ipc, uts and cgroup namespaces, empty /tmp, /run and /var/lib/nsinit. It returns true in that
// process; in the one that go test started it returns false once that has ended, and the test is over.
func inHost(t *testing.T, flags ...uintptr) bool {
	t.Helper()
	if os.Getenv(inHostEnv) == t.Name() {
		becomeHost(t)
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces and mounts")
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v=true")
	cmd.Env = append(os.Environ(), inHostEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: cloneFlags(flags), Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig comes when the thread ends
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("%s", out)
	}
	return false
}

func cloneFlags(more []uintptr) uintptr {
	flags := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
	for _, f := range more {
		flags |= f
	}
	return flags
}

func becomeHost(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, dir := range []string{"/tmp", "/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); !errors.Is(err, unix.ENOENT) {
			must(t, err)
		}
	}
	must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRootfs makes an empty root file system with a few directories.
func newRootfs(t *testing.T) string {
	t.Helper()
	dir := "/run/rootfs"
	for _, d := range []string{"etc", "proc", "sys", "dev", "tmp", "bin"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	return dir
}

// canary is a tree of the host's that nothing may change.
func canary(t *testing.T) (dir string, unchanged func()) {
	t.Helper()
	dir = "/run/canary"
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(dir+"/f", []byte("canary"), 0o640))
	must(t, os.WriteFile(dir+"/ptmx", []byte("canary"), 0o640))
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	before := describe(t, fd)
	return dir, func() {
		t.Helper()
		if after := describe(t, fd); after != before {
			t.Errorf("the host has changed:\n%s\nwas\n%s", after, before)
		}
	}
}

// describe lists a directory through its descriptor: names, inodes, modes, owners, times of change, contents.
func describe(t *testing.T, dir int) string {
	t.Helper()
	names, err := listIn(dir, ".")
	must(t, err)
	slices.Sort(names)
	var b strings.Builder
	for _, name := range append(names, ".") {
		var st unix.Stat_t
		must(t, unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW))
		fmt.Fprintln(&b, name, st.Ino, st.Mode, st.Uid, st.Gid, st.Ctim)
	}
	return b.String()
}

// build does all that the init does to mounts.
func build(c *Config, pty *Pty) (*Root, error) { return buildOn(c, pty, nil) }

// open is Open with a procfs of its own.
func open(c *Config, prepared *os.File) (*Root, error) {
	procfs, err := NewProcfs()
	if err != nil {
		return nil, err
	}
	return Open(c, prepared, procfs)
}

func buildOn(c *Config, pty *Pty, prepared *os.File) (*Root, error) {
	if err := MakePrivate(); err != nil {
		return nil, err
	}
	r, err := open(c, prepared)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return r.MountSystem(pty) },
		r.MountUser, r.WriteFiles, r.Pivot, r.Restrict, r.SetReadonly,
	} {
		if err := step(); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

func mustBuild(t *testing.T, c *Config) *Root {
	t.Helper()
	must(t, c.Validate())
	r, err := build(c, nil)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// mountedAt returns the options, type and superblock options of the last mount on a path.
func mountedAt(t *testing.T, point string) (options, fstype, super string) {
	t.Helper()
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		front, back, _ := strings.Cut(strings.TrimSpace(line), " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if f[4] == point {
			options, fstype, super = f[5], b[0], b[2]
			if len(f) > 6 {
				options += "," + f[6]
			}
		}
	}
	return options, fstype, super
}

func wantMount(t *testing.T, point, wantType, wantOptions string) {
	t.Helper()
	options, fstype, _ := mountedAt(t, point)
	if fstype != wantType || options != wantOptions {
		t.Errorf("%s is %q with %q, want %q with %q", point, fstype, options, wantType, wantOptions)
	}
}
