package fs

import (
	"errors"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type volumeSpec = specs.Mount

func bindOn(source, target string, options ...string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: target, Options: options}
}

func tmpfsOn(target string, options ...string) specs.Mount {
	return specs.Mount{Type: "tmpfs", Destination: target, Options: options}
}

func TestParseVolume(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, test := range []struct {
		mount specs.Mount
		want  string // part of the error; "" = none
	}{
		{bindOn("/a", "/b"), ""},
		{bindOn("/a", "/b", "ro", "rbind", "rprivate", "nosuid", "nodev", "noexec", "relatime"), ""},
		{specs.Mount{Source: "/a", Destination: "/b", Options: []string{"bind"}}, ""},
		{specs.Mount{Type: "none", Source: "/a", Destination: "/b", Options: []string{"rbind", "rw"}}, ""},
		{bindOn("/a", "/proc/meminfo"), ""},
		{bindOn("/proc", "/proc"), ""},
		{bindOn("/a", "/proc2"), ""},
		{bindOn("/a", "/b c\t,:\\="), ""},
		{tmpfsOn("/b", "size=64m", "mode=1777", "uid=1000", "gid=4294967294", "nr_inodes=1k", "nr_blocks=5", "exec", "suid"), ""},
		{tmpfsOn("/b", "size=50%"), ""},
		{bindOn("/a", ""), "mount destination: is empty"},
		{bindOn("/a", "b"), `"b": is not an absolute path`},
		{bindOn("/a", "/"), "is the root itself"},
		{bindOn("/a", "/."), "is the root itself"},
		{bindOn("/a", "//x/.."), "is the root itself"},
		{bindOn("/a", "/b\x00c"), "has a NUL byte"},
		{bindOn("/a", "/"+long), "has a part of 256 bytes"},
		{bindOn("/a", "/"+strings.Repeat("x/", 3000)), "bytes long"},
		{bindOn("", "/b"), "source: is empty"},
		{bindOn("a", "/b"), `source: "a": is not an absolute path`},
		{bindOn("/a", "/proc/self/attr"), "nothing may be mounted there"},
		{bindOn("/a", "/x/../proc/sys/kernel"), "nothing may be mounted there"},
		{tmpfsOn("/proc"), "can't stand in for /proc"},
		{tmpfsOn("/proc/self"), "nothing may be mounted there"},
		{bindOn("/a", "/b", "upperdir=/"), `option "upperdir=/": options with a value`},
		{bindOn("/a", "/b", "z"), `option "z": is unknown`},
		{bindOn("/a", "/b", ""), `option "": is unknown`},
		{bindOn("/a", "/b", "dev"), "no device rules"},
		{bindOn("/a", "/b", "size=1"), "for a tmpfs"},
		{tmpfsOn("/b", "size=-1"), `option "size=-1": has a value`},
		{tmpfsOn("/b", "size=abc"), "has a value"},
		{tmpfsOn("/b", "size=1,uid=0"), "has a value"},
		{tmpfsOn("/b", "size="), "has a value"},
		{tmpfsOn("/b", "mode=9"), "has a value"},
		{tmpfsOn("/b", "mode=17777"), "has a value"},
		{tmpfsOn("/b", "uid=4294967295"), "has a value"},
		{tmpfsOn("/b", "huge=always"), "is unknown"},
		{tmpfsOn("/b", "rbind"), "is none of a tmpfs"},
		{specs.Mount{Type: "ext4", Source: "/a", Destination: "/b"}, `type "ext4"`},
		{specs.Mount{Source: "/a", Destination: "/b"}, "needs a type"},
		{specs.Mount{Type: "bind", Source: "/a", Destination: "/b", UIDMappings: []specs.LinuxIDMapping{{}}}, "ID mappings"},
	} {
		_, err := parseVolume(&test.mount)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test.mount, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%.80q: %v, want %q", test.mount.Destination, err, test.want)
		case err != nil && strings.ContainsAny(err.Error(), "\n\x00"):
			t.Errorf("%.80q: %q is more than a line", test.mount.Destination, err)
		}
	}
}

func TestVolumeFlags(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, os.MkdirAll("/run/source/sub", 0o755))
	must(t, unix.Mount("sub", "/run/source/sub", "tmpfs", 0, ""))
	must(t, os.WriteFile("/run/file", []byte("data"), 0o644))
	c := plain(newRootfs(t))
	c.Mounts = []specs.Mount{
		bindOn("/run/source", "/rw"),
		bindOn("/run/source", "/ro", "ro", "nosuid", "noexec"),
		bindOn("/run/source", "/flat", "bind"),
		bindOn("/run/source", "/new/deep/noatime", "rw", "noatime", "nodiratime"),
		bindOn("/run/file", "/etc/file", "ro"),
		tmpfsOn("/t", "size=1m", "mode=700", "uid=5", "noexec", "ro"),
		tmpfsOn("/u", "suid", "exec", "strictatime"),
	}
	mustBuild(t, c)
	wantMount(t, "/rw", "tmpfs", "rw,nodev,relatime")
	wantMount(t, "/rw/sub", "tmpfs", "rw,nodev,relatime")
	wantMount(t, "/ro", "tmpfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/ro/sub", "tmpfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/flat", "tmpfs", "rw,nodev,relatime")
	wantMount(t, "/flat/sub", "", "")
	wantMount(t, "/new/deep/noatime", "tmpfs", "rw,nodev,noatime,nodiratime")
	wantMount(t, "/etc/file", "tmpfs", "ro,nodev,relatime")
	wantMount(t, "/t", "tmpfs", "ro,nosuid,nodev,noexec,relatime")
	wantMount(t, "/u", "tmpfs", "rw,nodev")
	if _, _, super := mountedAt(t, "/t"); !strings.Contains(super, "size=1024k,mode=700,uid=5") {
		t.Errorf("/t: %s", super)
	}
	var st unix.Stat_t
	must(t, unix.Stat("/new/deep", &st))
	if st.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("/new/deep: mode %o", st.Mode)
	}
}

func TestVolumeOrder(t *testing.T) {
	if !inHost(t) {
		return
	}
	for _, d := range []string{"a", "b", "b/inner"} {
		must(t, os.MkdirAll("/run/"+d, 0o755))
		must(t, os.WriteFile("/run/"+d+"/name", []byte(d), 0o644))
	}
	c := plain(newRootfs(t))
	c.Files = []File{{Path: "/etc/hosts", Content: []byte("made")}, {Path: "/etc/hostname", Content: []byte("made")}}
	c.Mounts = []specs.Mount{
		bindOn("/run/a", "/v"), bindOn("/run/b", "/v/"), bindOn("/run/a", "/v/inner"),
		bindOn("/run/a/name", "/etc//hosts"), bindOn("/run/a", "/dev/shm"),
	}
	mustBuild(t, c)
	for name, want := range map[string]string{
		"/v/name": "b", "/v/inner/name": "a", "/etc/hosts": "a", "/etc/hostname": "made", "/dev/shm/name": "a",
	} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestVolumeOnProc(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, os.WriteFile("/run/meminfo", []byte("fake"), 0o644))
	c := plain(newRootfs(t))
	must(t, os.Symlink("/proc", c.Root+"/p"))
	c.Mounts = []specs.Mount{bindOn("/run/meminfo", "/proc/meminfo"), bindOn("/run/meminfo", "/p/uptime")}
	mustBuild(t, c)
	for _, name := range []string{"/proc/meminfo", "/proc/uptime"} {
		if got, err := os.ReadFile(name); string(got) != "fake" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestVolumePropagation(t *testing.T) {
	if !inHost(t) {
		return
	}
	must(t, unix.Mount("", "/run", "", unix.MS_SHARED, ""))
	must(t, os.MkdirAll("/run/source", 0o755))
	c := plain(newRootfs(t))
	c.Mounts = []specs.Mount{
		bindOn("/run/source", "/a"), bindOn("/run/source", "/b", "rslave"), bindOn("/run/source", "/c", "rshared"),
	}
	must(t, unix.Unshare(unix.CLONE_NEWNS)) // as the init is
	mustBuild(t, c)
	for point, want := range map[string]string{"/": "", "/a": "", "/b": "master:", "/c": "shared:", "/proc": ""} {
		options, _, _ := mountedAt(t, point)
		if want == "" && (strings.Contains(options, "master") || strings.Contains(options, "shared")) ||
			!strings.Contains(options, want) {
			t.Errorf("%s: %s, want %q", point, options, want)
		}
	}
}

func TestVolumeSourceMissing(t *testing.T) {
	c := &Config{Mounts: []specs.Mount{bindOn("/nothing/here", "/b"), bindOn("/etc", "b")}}
	err := c.Validate()
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "mounts[0]: /b: source /nothing/here") ||
		!strings.Contains(err.Error(), "mounts[1]: mount destination") {
		t.Errorf("%v", err)
	}
}

func FuzzParseVolume(f *testing.F) {
	f.Add("bind", "/a", "/b", "ro,rbind")
	f.Add("tmpfs", "", "/proc/../x", "size=5%,mode=0")
	f.Fuzz(func(t *testing.T, kind, source, target, options string) {
		m := specs.Mount{Type: kind, Source: source, Destination: target, Options: strings.Split(options, ",")}
		v, err := parseVolume(&m)
		if err == nil && (v.target == "/" || v.target[0] != '/' || strings.Contains(v.target, "/../")) {
			t.Errorf("target %q", v.target)
		}
	})
}
