package fs

import (
	"errors"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A hostile root file system: what is done to it, and what comes of it.
type hostile struct {
	name  string
	plant func(t *testing.T, c *Config)
	want  string             // part of the error; "" = starts
	check func(t *testing.T) // inside
	errno unix.Errno         // 0 = not looked at
	pty   bool               // with a terminal
}

// instead puts a link in the place of a directory of the root.
func instead(name, target string) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		must(t, os.RemoveAll(c.Root+"/"+name))
		must(t, os.Symlink(target, c.Root+"/"+name))
	}
}

func mounts(m ...specs.Mount) func(*testing.T, *Config) {
	return func(_ *testing.T, c *Config) { c.Mounts = append(c.Mounts, m...) }
}

func all(steps ...func(*testing.T, *Config)) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		for _, s := range steps {
			s(t, c)
		}
	}
}

func link(target, name string) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) { must(t, os.Symlink(target, c.Root+name)) }
}

func special(name string, mode uint32, dev uint64) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		must(t, os.RemoveAll(c.Root+name))
		must(t, unix.Mknod(c.Root+name, mode, int(dev)))
	}
}

func reads(name, want string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

const isLink = "the root file system has a symbolic link there"

func hostileRoots() []hostile {
	source := bindOn("/run/source", "/v")
	at := func(target string) specs.Mount { return bindOn("/run/source", target) }
	file := func(target string) specs.Mount { return bindOn("/run/source/file", target) }
	return []hostile{
		// Catalogue of hostile roots, rows 1 to 6: the system's own directories.
		{name: "proc-link-absolute", plant: instead("proc", "/etc"), want: "mount /proc: " + isLink},
		{name: "proc-link-up", plant: instead("proc", "../../../proc"), want: "mount /proc: " + isLink},
		{name: "proc-link-magic", plant: instead("proc", "/proc/1/root/proc"), want: "mount /proc: " + isLink},
		{name: "proc-link-dangling", plant: instead("proc", "nothing"), want: "mount /proc: " + isLink},
		{name: "proc-link-loop", plant: instead("proc", "proc"), want: "mount /proc: " + isLink},
		{name: "sys-link", plant: instead("sys", "/run/canary"), want: "mount /sys: " + isLink},
		{name: "dev-link", plant: instead("dev", "/run/canary"), want: "mount /dev: " + isLink},
		{name: "dev-link-up", plant: instead("dev", "../canary"), want: "mount /dev: " + isLink},
		{name: "dev-link-magic", plant: instead("dev", "/proc/self/cwd"), want: "mount /dev: " + isLink},
		{name: "cgroup-link", plant: all(func(t *testing.T, c *Config) { must(t, os.Mkdir(c.Root+"/sys/fs", 0o755)) }, link("/run/canary", "/sys/fs/cgroup"))},
		{name: "dev-entries", plant: all(link("/run/canary", "/dev/pts"), link("/run/canary", "/dev/shm"), link("/run/canary", "/dev/mqueue"),
			link("/run/canary/f", "/dev/console"), link("/run/canary/f", "/dev/null"), link("/run/canary", "/dev/ptmx")), check: checkNodes},
		{name: "dev-console", plant: link("/run/canary/new", "/dev/console"), pty: true, check: checkConsole},
		{name: "dev-console-fifo", plant: special("/dev/console", unix.S_IFIFO|0o666, 0), pty: true, check: checkConsole},
		{name: "dev-null-file", plant: special("/dev/null", unix.S_IFREG|0o666, 0), check: checkNodes},
		{name: "dev-null-zero", plant: special("/dev/null", unix.S_IFCHR|0o666, unix.Mkdev(1, 5)), check: checkNodes},
		{name: "dev-null-fifo", plant: special("/dev/null", unix.S_IFIFO|0o666, 0), check: checkNodes},
		{name: "all-missing", plant: func(t *testing.T, c *Config) {
			must(t, os.RemoveAll(c.Root))
			must(t, os.Mkdir(c.Root, 0o755))
		}, check: checkNodes},
		{name: "proc-file", plant: special("/proc", unix.S_IFREG|0o644, 0), want: "mount /proc: the root file system has a regular file there"},
		{name: "sys-fifo", plant: special("/sys", unix.S_IFIFO|0o644, 0), want: "mount /sys: the root file system has a FIFO there"},
		{name: "dev-device", plant: special("/dev", unix.S_IFCHR|0o644, unix.Mkdev(1, 3)), want: "mount /dev: the root file system has a character device there"},

		// Row 12: made files.
		{name: "hosts-link", plant: all(link("/run/canary/f", "/etc/hosts"), files("/etc/hosts")), check: reads("/run/canary/f", "made")},
		{name: "hosts-link-up", plant: all(link("../../../run/canary/new", "/etc/hosts"), files("/etc/hosts")), check: reads("/run/canary/new", "made")},
		{
			name: "hosts-dir", plant: all(func(t *testing.T, c *Config) { must(t, os.Mkdir(c.Root+"/etc/hosts", 0o755)) }, files("/etc/hosts")),
			want: "file /etc/hosts: mount point /etc/hosts: is a directory, and a regular file can't be mounted on it",
		},
		{name: "hosts-mode", plant: all(special("/etc/hosts", unix.S_IFREG, 0), files("/etc/hosts")), check: reads("/etc/hosts", "made")},
		{name: "hosts-in-proc", plant: all(link("/proc/self/attr/exec", "/etc/hosts"), files("/etc/hosts")), want: "nothing may be mounted there"},
		{name: "etc-link", plant: all(instead("etc", "/run/canary"), files("/etc/hosts")), check: reads("/run/canary/hosts", "made")},

		// Rows 13 to 17: targets.
		{name: "target-up", plant: all(link("../../../canary", "/a"), mounts(at("/a/b"))), check: reads("/canary/b/file", "source")},
		{name: "target-link", plant: all(link("/run/canary", "/d"), mounts(at("/d"))), check: reads("/run/canary/file", "source")},
		{name: "target-dangling-middle", plant: all(link("x/y", "/d"), mounts(at("/d/e"))), check: reads("/x/y/e/file", "source")},
		{name: "target-dangling-last", plant: all(link("/x/../z", "/d"), mounts(at("/d"))), check: reads("/z/file", "source")},
		{name: "target-dangling-file", plant: all(link("../../new", "/etc/d"), mounts(file("/etc/d"))), check: reads("/new", "source")},
		{name: "target-magic-root", plant: all(link("/proc/1/root", "/d"), mounts(at("/d/tmp"))), errno: unix.ELOOP, want: "volume /d/tmp: mount point /d/tmp"},
		{name: "target-magic-fd", plant: all(link("/proc/self/fd/0", "/d"), mounts(at("/d"))), errno: unix.ELOOP, want: "volume /d"},
		{name: "target-magic-cwd", plant: all(link("/proc/self/cwd", "/d"), mounts(at("/d/new"))), errno: unix.ELOOP, want: "volume /d/new"},
		{name: "target-loop", plant: all(link("b", "/a"), link("a", "/b"), mounts(at("/a/x"))), errno: unix.ELOOP, want: "volume /a/x"},
		{name: "target-41-links", plant: all(chain(41), mounts(at("/l0/new"))), errno: unix.ELOOP, want: "volume /l0/new"},
		{name: "target-30-links", plant: all(chain(30), mounts(at("/l0/new"))), check: reads("/new/file", "source")},
		{name: "dir-on-file", plant: all(special("/f", unix.S_IFREG, 0), mounts(at("/f"))), want: "is a regular file, and a directory can't be mounted on it"},
		{name: "file-on-dir", plant: mounts(file("/tmp")), want: "is a directory, and a regular file can't be mounted on it"},
		{name: "tmpfs-on-file", plant: all(special("/f", unix.S_IFREG, 0), mounts(tmpfsOn("/f"))), want: "is a regular file, and a directory"},
		{name: "file-below-file", plant: all(special("/f", unix.S_IFREG, 0), mounts(at("/f/x"))), errno: unix.ENOTDIR, want: "volume /f/x"},
		{name: "file-on-fifo", plant: all(special("/f", unix.S_IFIFO, 0), mounts(file("/f"))), check: reads("/f", "source")},
		{name: "file-on-device", plant: all(special("/f", unix.S_IFBLK, unix.Mkdev(8, 0)), mounts(file("/f"))), check: reads("/f", "source")},
		{name: "target-odd-name", plant: mounts(at("/ \t\n,:\\=é\xff")), check: reads("/ \t\n,:\\=é\xff/file", "source")},
		{name: "proc-by-link", plant: all(link("/proc", "/p"), mounts(at("/p/self"))), want: "nothing may be mounted there"},
		{name: "proc-root-by-link", plant: all(link("/proc", "/p"), mounts(at("/p"))), want: "only a procfs can be mounted on a procfs"},
		{name: "proc-root", plant: mounts(at("/proc")), want: "only a procfs can be mounted on a procfs"},
		{name: "proc-attr-by-up", plant: all(link("proc", "/p"), mounts(file("/p/self/attr/exec"))), want: "nothing may be mounted there"},

		// Rows 19 to 28: where the root lies.
		{name: "host-root", plant: func(_ *testing.T, c *Config) { c.Root = "/" }, want: "is the host's own root"},
		{name: "host-root-by-link", plant: func(t *testing.T, c *Config) {
			c.Root = "/run/link"
			must(t, os.Symlink("/run/..", c.Root))
		}, want: "is the host's own root"},
		{name: "root-link", plant: func(t *testing.T, c *Config) {
			must(t, os.Symlink(c.Root, "/run/link"))
			c.Root = "/run/link"
		}, check: checkNodes},
		{name: "root-odd-name", plant: func(t *testing.T, c *Config) {
			must(t, os.Rename(c.Root, "/run/a b,c:d\\e=\n"))
			c.Root = "/run/a b,c:d\\e=\n"
		}, check: checkNodes},
		{name: "root-missing", plant: func(_ *testing.T, c *Config) { c.Root = "/run/none" }, errno: unix.ENOENT, want: "root file system: /run/none"},
		{name: "root-file", plant: func(_ *testing.T, c *Config) { c.Root = "/etc/passwd" }, errno: unix.ENOTDIR, want: "root file system: /etc/passwd"},
		{name: "root-readonly", plant: all(bindRoot(unix.MS_RDONLY), files()), check: checkNodes},
		{
			name: "root-readonly-missing", plant: all(func(t *testing.T, c *Config) { must(t, os.Remove(c.Root+"/sys")) }, bindRoot(unix.MS_RDONLY)),
			errno: unix.EROFS, want: "mount /sys: the directory is missing and can't be made",
		},
		{
			name: "root-readonly-target", plant: all(bindRoot(unix.MS_RDONLY), mounts(source)), errno: unix.EROFS,
			want: `volume /v: mount point /v: "v" is missing and can't be made`,
		},
		{name: "root-nosuid-nodev", plant: bindRoot(unix.MS_NOSUID | unix.MS_NODEV), check: func(t *testing.T) {
			checkNodes(t)
			wantMount(t, "/", "tmpfs", "rw,nosuid,nodev,relatime")
		}},
		{name: "root-noexec", plant: bindRoot(unix.MS_NOEXEC), check: func(t *testing.T) {
			if !Noexec("/bin") || Noexec("/dev") {
				t.Error("noexec is not told")
			}
		}},
		{name: "target-below-root", plant: mounts(at("/a/../../../b/.")), check: reads("/b/file", "source")},
		{name: "root-no-inodes", plant: func(t *testing.T, c *Config) {
			must(t, unix.Mount("small", c.Root, "tmpfs", 0, "nr_inodes=3"))
			must(t, os.Mkdir(c.Root+"/proc", 0o755))
			must(t, os.Mkdir(c.Root+"/sys", 0o755))
		}, errno: unix.ENOSPC, want: "mount /dev: the directory is missing and can't be made"},
		{name: "root-submounts", plant: func(t *testing.T, c *Config) {
			must(t, os.Mkdir(c.Root+"/data", 0o755))
			must(t, unix.Mount("data", c.Root+"/data", "tmpfs", 0, ""))
			must(t, os.WriteFile(c.Root+"/data/x", []byte("sub"), 0o644))
			must(t, unix.Mount("proc", c.Root+"/proc", "proc", 0, ""))
		}, check: reads("/data/x", "sub")},
		{name: "root-unbindable", plant: func(t *testing.T, c *Config) {
			must(t, unix.Mount("u", c.Root, "tmpfs", 0, ""))
			must(t, unix.Mount("", c.Root, "", unix.MS_UNBINDABLE, ""))
		}, errno: unix.EINVAL, want: "root file system: /run/rootfs: open_tree"},
		{name: "root-shared", plant: func(t *testing.T, c *Config) {
			must(t, unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""))
		}, check: checkNodes},
	}
}

func files(names ...string) func(*testing.T, *Config) {
	return func(_ *testing.T, c *Config) {
		for _, n := range names {
			c.Files = append(c.Files, File{Path: n, Content: []byte("made")})
		}
	}
}

// chain plants /l0 -> l1 -> ... -> /.
func chain(n int) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		for i := range n {
			target := "l" + string(rune('A'+i))
			if i == n-1 {
				target = "/"
			}
			name := "/l" + string(rune('A'+i-1))
			if i == 0 {
				name = "/l0"
			}
			must(t, os.Symlink(target, c.Root+name))
		}
	}
}

// bindRoot mounts the root on itself with further flags.
func bindRoot(flags uintptr) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		must(t, unix.Mount(c.Root, c.Root, "", unix.MS_BIND, ""))
		must(t, unix.Mount("", c.Root, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""))
	}
}

func TestHostileRoot(t *testing.T) {
	for _, h := range hostileRoots() {
		t.Run(h.name, func(t *testing.T) {
			if inHost(t) {
				h.run(t)
			}
		})
	}
}

func (h *hostile) run(t *testing.T) {
	_, unchanged := canary(t)
	must(t, os.MkdirAll("/run/source", 0o755))
	must(t, os.WriteFile("/run/source/file", []byte("source"), 0o644))
	c := plain(newRootfs(t))
	if h.plant != nil {
		h.plant(t, c)
	}
	var pty *Pty
	if h.pty {
		var err error
		pty, err = NewPty(false)
		must(t, err)
		defer pty.Close()
	}
	r, err := build(c, pty)
	defer unchanged()
	if h.want != "" {
		h.checkError(t, err)
		return
	}
	must(t, err)
	defer r.Close()
	if h.check != nil {
		h.check(t)
	}
	checkMasked(t, DefaultMaskedPaths())
}

func (h *hostile) checkError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("it starts")
	}
	if !strings.Contains(err.Error(), h.want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q, want %q in one line", err, h.want)
	}
	if h.errno != 0 && !errors.Is(err, h.errno) {
		t.Errorf("%q is not %v", err, h.errno)
	}
}

func checkConsole(t *testing.T) {
	t.Helper()
	checkNodes(t)
	var console, slave unix.Stat_t
	must(t, unix.Lstat("/dev/console", &console))
	must(t, unix.Lstat("/dev/pts/0", &slave))
	if console.Rdev != slave.Rdev || console.Dev != slave.Dev || unix.Major(console.Rdev) != 136 {
		t.Errorf("/dev/console is device %x of file system %x, the terminal %x of %x", console.Rdev, console.Dev, slave.Rdev, slave.Dev)
	}
}
