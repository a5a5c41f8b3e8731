package creds

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is no plain file is refused for a name at once, and is no obstacle for a number.
func TestHostileUserFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		root bool // needs root
		make func(path string) error
		want string
	}{
		"fifo":      {false, func(p string) error { return unix.Mkfifo(p, 0o666) }, "is not a regular file"},
		"directory": {false, func(p string) error { return os.Mkdir(p, 0o755) }, "is not a regular file"},
		"socket": {false, func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				l.Close()
			}
			return err
		}, "is not a regular file"},
		"zero":          {true, device(unix.S_IFCHR, 1, 5), "is not a regular file"},
		"terminal":      {true, device(unix.S_IFCHR, 5, 0), "is not a regular file"},
		"block":         {true, device(unix.S_IFBLK, 7, 0), "is not a regular file"},
		"dangling link": {false, link("nowhere"), "no such file"},
		"link to self":  {false, link("passwd"), "too many levels"},
		// Absolute links and .. end in the container's root, so these aren't the host's.
		"link to the host":         {false, link("/proc/self/status"), "no such file"},
		"link upwards to the host": {false, link("../../../../../../../../etc/hostname"), "no such file"},
		"sparse 1 TB":              {false, func(p string) error { return sparse(p, 1<<40) }, "is larger than 32 MiB"},
		"no newline":               {false, func(p string) error { return sparse(p, maxUserFile) }, "has a line longer than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.root {
				needRoot(t)
			}
			root := rootWith(t, "", plainGroup)
			if err := c.make(filepath.Join(root.Name(), passwdPath)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			u, err := LookupUser(root, "alice")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), passwdPath) {
				t.Errorf("alice: got %+v, %v, want %q", u, err, c.want)
			}
			if c.want != "has a line longer than 1 MiB" {
				if u, err := LookupUser(root, "1000:users"); err != nil && !strings.Contains(err.Error(), "32 MiB") || err == nil && u.GID != 100 {
					t.Errorf("1000: got %+v, %v", u, err)
				}
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func device(kind, major, minor uint32) func(string) error {
	return func(p string) error { return unix.Mknod(p, kind|0o666, int(unix.Mkdev(major, minor))) }
}

func link(to string) func(string) error {
	return func(p string) error { return os.Symlink(to, p) }
}

func sparse(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

// Files of the kernel's are regular by their mode, and must not be read all the same.
func TestKernelFilesRefused(t *testing.T) {
	t.Parallel()
	root := openRoot(t, "/")
	for path, want := range map[string]string{
		"/proc/cpuinfo":       "file system of the kernel's",
		"/proc/kmsg":          "file system of the kernel's",
		"/proc/1/environ":     "file system of the kernel's",
		"/sys/kernel/notes":   "file system of the kernel's",
		"/proc/self/fd/0":     "too many levels", // openat2's answer to a magic link
		"/proc/self/root/etc": "too many levels",
	} {
		if _, err := os.Lstat(path); err != nil {
			continue // not every machine shows all of them
		}
		fd, err := openUserFile(root, path)
		if err == nil {
			unix.Close(fd)
			t.Errorf("%s is opened", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestLinkInsideTheRoot(t *testing.T) {
	t.Parallel()
	root := rootWith(t, "", plainGroup)
	dir := root.Name()
	if err := os.MkdirAll(filepath.Join(dir, "usr/share"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/share/passwd"), []byte(plainPasswd), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/../usr/share/passwd", filepath.Join(dir, passwdPath)); err != nil {
		t.Fatal(err)
	}
	if u, err := LookupUser(root, "alice"); err != nil || u.UID != 1000 {
		t.Errorf("got %+v, %v", u, err)
	}
}

// The largest file that is taken is read within a second and a few MB.
func TestLargeUserFile(t *testing.T) {
	// Not in parallel: the memory is counted.
	line := "somebody:x:123456:123456:Somebody, somewhere:/home/somebody:/bin/sh\n"
	last := "alice:x:1000:1000::/home/alice:/bin/sh\n"
	passwd := strings.Repeat(line, (maxUserFile-len(last))/len(line)) + last
	root := rootWith(t, passwd, plainGroup)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	u, err := LookupUser(root, "alice")
	d := time.Since(start)
	runtime.ReadMemStats(&after)
	if err != nil || u.UID != 1000 {
		t.Errorf("got %+v, %v", u, err)
	}
	used := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d MB in %v with %d kB of memory", len(passwd)>>20, d, used>>10)
	if used > 4<<20 {
		t.Errorf("used %d bytes", used)
	}
	if d > 5*time.Second { // 0.1 s on a plain machine, 2.5 s on an emulated one
		t.Errorf("took %v", d)
	}
	if err := os.WriteFile(filepath.Join(root.Name(), passwdPath), []byte(passwd+line), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LookupUser(root, "alice"); err == nil || !strings.Contains(err.Error(), "larger than 32 MiB") {
		t.Errorf("a larger file: %v", err)
	}
}

// A reader that grows while it is read ends at the limit too.
func TestEndlessUserFile(t *testing.T) {
	t.Parallel()
	lines := 0
	err := scanLines(endless{}, func([]byte) bool { lines++; return true })
	if err == nil || !strings.Contains(err.Error(), "larger than 32 MiB") || lines > maxUserFile/2 {
		t.Errorf("got %v after %d lines", err, lines)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "x\n"[i%2]
	}
	return len(p), nil
}

func TestExchangedFile(t *testing.T) {
	t.Parallel()
	root := rootWith(t, plainPasswd, plainGroup)
	passwd, other := filepath.Join(root.Name(), passwdPath), filepath.Join(root.Name(), "fifo")
	if err := unix.Mkfifo(other, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, passwd, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
					return
				}
			}
		}
	}()
	for range 2000 {
		if u, err := LookupUser(root, "alice"); err == nil && u.UID != 1000 {
			t.Errorf("got %+v", u)
		}
	}
	close(stop)
	<-done
}
