package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// The default container is podman's, with NET_RAW and no_new_privs. Every test here is about a container
// that was started without any flag but its rootfs.

// inDefault runs a shell script in a default container and returns its output.
func inDefault(t testing.TB, m *machine, text string, flags ...string) string {
	t.Helper()
	return m.run(t, with([]string{"--rootfs", newRootfs(t)}, flags, script(text))...).OK(t).Line()
}

func TestDefaultMounts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	mounts := netsetuptest.ParseMounts(inDefault(t, m, "cat /proc/self/mountinfo"))
	byPoint := map[string]netsetuptest.Mount{}
	for _, mount := range mounts {
		byPoint[mount.Point] = mount
		if mount.Propagation != "" {
			t.Errorf("%s: propagation %s, want private", mount.Point, mount.Propagation)
		}
	}
	for _, c := range []struct{ point, kind, options string }{
		{"/", "", "rw,nodev"},
		{"/proc", "proc", "rw,nosuid,nodev,noexec"},
		{"/dev", "tmpfs", "rw,nosuid,mode=755,size=65536k"},
		{"/dev/pts", "devpts", "rw,nosuid,noexec,gid=5,mode=620,ptmxmode=666"},
		{"/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,size=65536k"},
		{"/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"},
		{"/sys", "sysfs", "ro,nosuid,nodev,noexec"},
		{"/sys/fs/cgroup", "cgroup2", "ro,nosuid,nodev,noexec"},
		{"/etc/hosts", "", "nodev"},
		{"/etc/resolv.conf", "", "nodev"},
		{"/etc/hostname", "", "nodev"},
	} {
		got, ok := byPoint[c.point]
		if !ok || c.kind != "" && got.Type != c.kind {
			t.Errorf("%s: %+v, want %s", c.point, got, c.kind)
			continue
		}
		for option := range strings.SplitSeq(c.options, ",") {
			if !got.Has(option) {
				t.Errorf("%s: lacks %s: %s %s", c.point, option, got.Options, got.Super)
			}
		}
	}
	if dev := byPoint["/dev"]; dev.Has("relatime") || dev.Has("noatime") {
		t.Errorf("/dev: %s, want strictatime", dev.Options)
	}
}

func TestDefaultMountPointsOnce(t *testing.T) {
	t.Parallel()
	points := map[string]int{}
	for _, mount := range netsetuptest.ParseMounts(inDefault(t, newMachine(t), "cat /proc/self/mountinfo")) {
		if points[mount.Point]++; points[mount.Point] > 1 {
			t.Errorf("%s is covered by a second mount: %+v", mount.Point, mount)
		}
	}
}

func TestDefaultDevices(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	core := "core "
	if _, err := os.Stat("/proc/kcore"); err != nil {
		core = ""
	}
	names := strings.Join(strings.Fields(inDefault(t, m, "ls /dev")), " ")
	if want := core + "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"; names != want {
		t.Errorf("/dev holds %s, want %s", names, want)
	}
	text := inDefault(t, m, "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; stat -c '%a %u:%g' . shm; ls pts")
	want := `null character special file 1:3 666 0:0
zero character special file 1:5 666 0:0
full character special file 1:7 666 0:0
random character special file 1:8 666 0:0
urandom character special file 1:9 666 0:0
tty character special file 5:0 666 0:0
fd /proc/self/fd
stdin /proc/self/fd/0
stdout /proc/self/fd/1
stderr /proc/self/fd/2
ptmx pts/ptmx
755 0:0
1777 0:0
ptmx`
	if text != want {
		t.Errorf("/dev:\n%s\nwant\n%s", text, want)
	}
	if got := inDefault(t, m, "head -c 4 /dev/zero | od -An -tx1; echo x >/dev/null; head -c 9 /dev/urandom | wc -c"); strings.Join(strings.Fields(got), " ") != "00 00 00 00 9" {
		t.Errorf("the nodes don't work: %q", got)
	}
}

// maskedPaths are hidden, readonlyPaths can't be written.
var maskedPaths = []string{
	"/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
	"/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/fs/selinux", "/sys/devices/virtual/powercap",
}

var readonlyPaths = []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

func TestDefaultMaskedPaths(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	paths := slices.Clone(maskedPaths)
	throttle, _ := filepath.Glob("/sys/devices/system/cpu/cpu*/thermal_throttle")
	paths = append(paths, throttle...)
	seen := 0
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			continue // this kernel hasn't got it
		}
		seen++
		if st.IsDir() {
			want := "0 read-only"
			if got := inDefault(t, m, fmt.Sprintf("echo $(ls -A %[1]s | wc -l) $(mkdir %[1]s/x 2>&1 | grep -q 'Read-only' && echo read-only)", path)); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			continue
		}
		if got := inDefault(t, m, fmt.Sprintf("stat -c %%t:%%T %[1]s; wc -c <%[1]s", path)); got != "1:3\n0" {
			t.Errorf("%s: %q, want the null device", path, got)
		}
	}
	if seen == 0 {
		t.Error("none of the masked paths exists on this kernel")
	}
}

func TestDefaultReadonlyPaths(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	mounts := netsetuptest.ParseMounts(inDefault(t, m, "cat /proc/self/mountinfo"))
	for _, path := range readonlyPaths {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		i := slices.IndexFunc(mounts, func(m netsetuptest.Mount) bool { return m.Point == path })
		if i < 0 {
			t.Errorf("%s: not a mount of its own", path)
		} else if mt := mounts[i]; !mt.Has("ro") || !mt.Has("nosuid") || !mt.Has("nodev") || !mt.Has("noexec") {
			t.Errorf("%s: %s", path, mt.Options)
		}
	}
	got := inDefault(t, m, "for f in /proc/sys/kernel/core_pattern /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs; do (echo x >$f) 2>&1; done | grep -v -e 'Read-only' -e 'nonexistent directory' -e 'Permission denied' | wc -l")
	if got != "0" {
		t.Errorf("%s of the host's files could be written", got)
	}
}

func TestPrivilegedMasksNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	own := fields(m.Run(t, "cat", "/proc/self/status").OK(t).Stdout)["CapBnd"]
	status := fields(inDefault(t, m, "cat /proc/self/status", "--privileged"))
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if status[set] != own {
			t.Errorf("%s: %s, want the caller's %s", set, status[set], own)
		}
	}
	for _, mount := range netsetuptest.ParseMounts(inDefault(t, m, "cat /proc/self/mountinfo", "--privileged")) {
		if strings.HasPrefix(mount.Point, "/proc/") || strings.HasPrefix(mount.Point, "/sys") && mount.Has("ro") {
			t.Errorf("%s: %s %s", mount.Point, mount.Type, mount.Options)
		}
	}
	if got := inDefault(t, m, "echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward", "--privileged"); got != "1" {
		t.Errorf("ip_forward: %q", got)
	}
}

func TestDefaultCredentials(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, c := range []struct {
		flags []string
		want  map[string]string
	}{
		{nil, map[string]string{
			"CapInh": noCaps, "CapPrm": defaultCaps, "CapEff": defaultCaps, "CapBnd": defaultCaps, "CapAmb": noCaps,
			"NoNewPrivs": "1", "Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "0 29", "Umask": "0022",
			"SigBlk": noCaps, "SigIgn": noCaps,
		}},
		{[]string{"--user", "1000"}, map[string]string{
			"CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapBnd": defaultCaps, "CapAmb": noCaps,
			"NoNewPrivs": "1", "Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "29 50 1001",
		}},
		{[]string{"--user", "7:8"}, map[string]string{"Uid": "7 7 7 7", "Gid": "8 8 8 8", "Groups": "8"}},
		{[]string{"--cap-drop", "ALL", "--cap-add", "NET_ADMIN"}, map[string]string{"CapPrm": "0000000000001000", "CapEff": "0000000000001000", "CapBnd": "0000000000001000"}},
		{[]string{"--security-opt", "no-new-privileges=false"}, map[string]string{"NoNewPrivs": "0"}},
	} {
		got := fields(m.run(t, with([]string{"--rootfs", newRootfs(t)}, c.flags, []string{"cat", "/proc/self/status"})...).OK(t).Stdout)
		for key, want := range c.want {
			if got[key] != want {
				t.Errorf("%v: %s: %q, want %q", c.flags, key, got[key], want)
			}
		}
	}
}

func TestDefaultNamespaces(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	text := "for n in mnt uts pid ipc net cgroup user; do readlink /proc/self/ns/$n; done"
	inside := strings.Fields(inDefault(t, m, text))
	outside := strings.Fields(m.Run(t, "sh", "-c", text).OK(t).Stdout)
	for i, name := range []string{"mnt", "uts", "pid", "ipc", "net", "cgroup"} {
		if inside[i] == outside[i] {
			t.Errorf("%s: the host's", name)
		}
	}
	if inside[6] != outside[6] {
		t.Error("user: not the host's")
	}
}

func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	text := "ulimit -Sn; ulimit -Hn; ulimit -Sp 2>/dev/null || ulimit -Su"
	limits := m.Run(t, "sh", "-c", "ulimit -Hn; ulimit -Hp 2>/dev/null || ulimit -Hu").OK(t).Stdout
	want := slices.Insert(strings.Fields(limits), 0, strings.Fields(limits)[0])
	for i, have := range want {
		if have == "unlimited" || len(have) > 7 {
			want[i] = "1048576" // podman's
		}
	}
	if got := strings.Fields(inDefault(t, m, text)); !slices.Equal(got, want) {
		t.Errorf("NOFILE soft, hard, NPROC: %v, want %v", got, want)
	}
	outside := m.Run(t, "cat", "/proc/self/limits").OK(t).Stdout
	inside := inDefault(t, m, "cat /proc/self/limits") + "\n"
	for line := range strings.Lines(outside) {
		if !strings.HasPrefix(line, "Max open files") && !strings.HasPrefix(line, "Max processes") && !strings.Contains(inside, line) {
			t.Errorf("a limit was not passed on: %s", line)
		}
	}
}

func TestDefaultEnvironment(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.command("run", "--rootfs", newRootfs(t), "--name", "c1", "env")
	cmd.Env = append(cmd.Env, "SECRET=of the host")
	got := strings.Fields(m.RunCmd(t, cmd).OK(t).Stdout)
	slices.Sort(got)
	if want := []string{"HOME=/root", "HOSTNAME=c1", "PATH=" + netsetuptest.Path, "container=nsinit"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestDefaultCgroup(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "c1", "--rootfs", newRootfs(t), "sleep", "60")
	if got := c.exec(t, "cat", "/proc/1/cgroup").OK(t).Stdout; !strings.Contains("\n"+got, "\n0::/\n") {
		t.Errorf("inside: %q, want 0::/", got)
	}
	procs, err := os.ReadFile(filepath.Join(m.Cgroup(), "nsinit", "c1", "cgroup.procs"))
	if err != nil || strings.Count(string(procs), "\n") != 1 {
		t.Errorf("cgroup /nsinit/c1 of the host: %q, %v, want one process", procs, err)
	}
}

func TestDefaultProcesses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if got := inDefault(t, m, "ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; cat /proc/1/oom_score_adj"); !strings.HasPrefix(got, "3\nsh\n0") && !strings.HasPrefix(got, "2\nsh\n0") {
		t.Errorf("processes seen inside, name of process 1, its oom_score_adj: %q", got)
	}
}

func TestDefaultHostname(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if got := inDefault(t, m, "hostname; cat /etc/hostname", "--name", "c1"); got != "c1\nc1" {
		t.Errorf("host name %q, want the container's name", got)
	}
	if got := m.Run(t, "hostname").OK(t).Line(); got != "host" {
		t.Errorf("the host is called %q now", got)
	}
}

// Without --rootfs the container has the host's files: readable, under an overlay that is thrown away.
func TestDefaultRootfsIsThrownAway(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	name := fmt.Sprintf("nsinit-test-%d", os.Getpid())
	text := fmt.Sprintf("echo x >/etc/%[1]s && echo x >/usr/%[1]s && cat /etc/%[1]s; cat /etc/shadow 2>/dev/null; ls -A /root; ls -A /home", name)
	if got := m.run(t, script(text)...).Stdout; got != "x\n" {
		t.Errorf("got %q, want a writable /etc, and nothing in shadow, /root and /home", got)
	}
	for _, dir := range []string{"/etc/", "/usr/"} {
		if _, err := os.Lstat(dir + name); err == nil {
			t.Errorf("%s%s was made on the host", dir, name)
			_ = os.Remove(dir + name)
		}
	}
	if got := m.run(t, "ip", "-o", "link").OK(t).Stdout; strings.Count(got, "\n") != 1 {
		t.Errorf("interfaces without --network: %q, want lo", got)
	}
}
