package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A trial is one start of a container, by which a step is judged.
type trial struct {
	t    testing.TB
	m    *machine
	bin  string
	env  []string
	root string // a rootfs of the trial's own
}

// run runs nsinit run with args on the trial's rootfs.
func (s *trial) run(args ...string) netsetuptest.Result {
	s.t.Helper()
	cmd := s.m.Command(with([]string{s.bin, "run", "--rootfs", s.root}, args)...)
	cmd.Env = append(cmd.Env, s.env...)
	return s.m.RunCmd(s.t, cmd)
}

// sh runs a shell script inside and returns its output, an error if its exit code isn't 0.
func (s *trial) sh(flags []string, text string) (string, error) {
	s.t.Helper()
	r := s.run(with(flags, script(text))...)
	if r.Code != 0 {
		return r.Stdout, fmt.Errorf("exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n"), nil
}

// want runs a shell script inside and compares its output.
func (s *trial) want(flags []string, text, want string) error {
	s.t.Helper()
	got, err := s.sh(flags, text)
	if err == nil && got != want {
		err = fmt.Errorf("%s: got %q, want %q", text, got, want)
	}
	return err
}

// errNotHere is returned by a check of what this kernel can't do.
var errNotHere = errors.New("this kernel lacks it")

// stepChecks says of each step of the init what is wrong in a container that was started without it. Each
// check is made twice: with the step it must return nil, and without it an error.
var stepChecks = map[string]func(*trial) error{
	"context":      func(s *trial) error { return s.want(nil, "echo hello", "hello") },
	"environment":  checkEnvironment,
	"console":      checkConsole,
	"session":      checkSession,
	"network":      checkNetwork,
	"propagation":  checkPropagation,
	"rootfs":       func(s *trial) error { return s.want(nil, "cat /marker", s.t.Name()) },
	"mounts":       checkMounts,
	"volumes":      checkVolumes,
	"files":        checkFiles,
	"pivot":        checkPivot,
	"hostname":     func(s *trial) error { return s.want([]string{"--hostname", "web.test"}, "hostname", "web.test") },
	"sysctls":      checkSysctls,
	"restrict":     checkRestrict,
	"readonly":     checkReadonly,
	"user":         checkUser,
	"rlimits":      checkRlimits,
	"apparmor":     checkAppArmor,
	"selinux":      func(*trial) error { return errNotHere },
	"bounding":     func(s *trial) error { return s.wantStatus(nil, "CapBnd", defaultCaps) },
	"descriptors":  checkDescriptors,
	"credentials":  checkCredentials,
	"cwd":          func(s *trial) error { return s.want([]string{"--workdir", "/var/data"}, "pwd", "/var/data") },
	"program":      func(s *trial) error { r := s.run("--", "echo", "found"); return wantOutput(r, "found\n") },
	"capabilities": checkCapabilities,
	"no-new-privs": func(s *trial) error { return s.wantStatus(nil, "NoNewPrivs", "1") },
	"exec":         func(s *trial) error { return s.want(nil, "echo $$", "1") },
}

// stepNames asks the binary.
func stepNames(t testing.TB, m *machine) map[string][]string {
	t.Helper()
	return netsetuptest.Decode[map[string][]string](t, m.nsinit(t, "help", "steps", "--json").OK(t))
}

func TestEveryStepHasACheck(t *testing.T) {
	t.Parallel()
	names := stepNames(t, newMachine(t))["init"]
	for _, name := range names {
		if stepChecks[name] == nil {
			t.Errorf("step %s of the init has no check", name)
		}
	}
	for name := range stepChecks {
		if !slices.Contains(names, name) {
			t.Errorf("check %s is of no step of the init: %v", name, names)
		}
	}
}

func TestStep(t *testing.T) {
	t.Parallel()
	for name, check := range stepChecks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := check(&trial{t: t, m: newMachine(t), bin: nsinitBin, root: newRootfs(t)})
			if errors.Is(err, errNotHere) {
				t.Skip(err)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStepIsNeeded leaves each step out once, and wants the step's own check to fail.
func TestStepIsNeeded(t *testing.T) {
	t.Parallel()
	long(t)
	for name, check := range stepChecks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.Dirty() // a container that is not cut off from the host's mounts leaves some there
			err := check(&trial{t: t, m: m, bin: gatesBin, env: []string{"NSINIT_SKIP=init:" + name}, root: newRootfs(t)})
			if errors.Is(err, errNotHere) {
				t.Skip(err)
			}
			if err == nil {
				t.Errorf("nothing is missing without step %s", name)
			}
			t.Logf("without %s: %v", name, err)
		})
	}
}

// wantStatus compares a line of the program's /proc/self/status.
func (s *trial) wantStatus(flags []string, key, want string) error {
	s.t.Helper()
	out, err := s.sh(flags, "cat /proc/self/status")
	if got := fields(out)[key]; err == nil && got != want {
		err = fmt.Errorf("%s: %s, want %s", key, got, want)
	}
	return err
}

func wantOutput(r netsetuptest.Result, want string) error {
	if r.Code != 0 || r.Stdout != want {
		return fmt.Errorf("exit code %d, stdout %q, want %q; stderr %s", r.Code, r.Stdout, want, r.Stderr)
	}
	return nil
}

// The look-up of the program uses the environment that was asked for.
func checkEnvironment(s *trial) error {
	if err := os.Remove(filepath.Join(s.root, "bin", "ash")); err != nil {
		return err
	}
	if err := os.Symlink("/bin/busybox", filepath.Join(s.root, "mnt", "ash")); err != nil {
		return err
	}
	return wantOutput(s.run("--env", "PATH=/mnt", "--", "ash", "-c", "echo $PATH"), "/mnt\n")
}

func checkConsole(s *trial) error {
	cmd := s.m.Command(s.bin, "run", "--rootfs", s.root, "-t", "--", "/bin/sh", "-c", "tty; ls -l /dev/console; exec 3</dev/tty && echo controls")
	cmd.Env = append(cmd.Env, s.env...)
	p, term := startOnTerminal(s.t, s.m, cmd)
	r := p.Wait(s.t)
	out := term.all(s.t)
	for _, want := range []string{"/dev/pts/0", "/dev/console", "controls"} {
		if r.Code != 0 || !strings.Contains(out, want) {
			return fmt.Errorf("exit code %d, terminal %q, want %s", r.Code, out, want)
		}
	}
	return nil
}

// Fields 5 and 6 of stat are process group and session (proc_pid_stat(5)).
func checkSession(s *trial) error {
	return s.want(nil, `set -- $(cat /proc/$$/stat); echo $5 $6`, "1 1")
}

func checkNetwork(s *trial) error {
	if err := s.want(nil, "ip addr show lo | grep -c -e 127.0.0.1/8 -e ::1/128", "2"); err != nil {
		return err
	}
	return s.want([]string{"--network", "bridge"}, "ip -4 route show default | wc -l; ip addr show eth0 | grep -c -e 'inet ' -e 'inet6.*global'", "1\n2")
}

// The host's mounts are shared, as systemd makes them: nothing of the container's may show there.
func checkPropagation(s *trial) error {
	s.m.Run(s.t, "mount", "--make-rshared", "/").OK(s.t)
	before := s.m.Snapshot(s.t).Grep("mount ")
	if _, err := s.sh([]string{"--tmpfs", "/mnt"}, "true"); err != nil {
		return err
	}
	if d := netsetuptest.Diff(before, s.m.Snapshot(s.t).Grep("mount ")); d != "" {
		return fmt.Errorf("the host's mounts changed:\n%s", d)
	}
	return nil
}

func checkMounts(s *trial) error {
	out, err := s.sh(nil, "cat /proc/self/mountinfo")
	if err != nil {
		return err
	}
	mounts := netsetuptest.ParseMounts(out)
	for _, want := range []string{"/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"} {
		if !slices.ContainsFunc(mounts, func(m netsetuptest.Mount) bool { return m.Point == want }) {
			return fmt.Errorf("no mount on %s:\n%s", want, out)
		}
	}
	return nil
}

func checkVolumes(s *trial) error {
	dir := s.t.TempDir()
	write(s.t, filepath.Join(dir, "f"), "of the host")
	flags := []string{"--volume", dir + ":/vol", "--volume", dir + ":/ro:ro", "--tmpfs", "/scratch:size=1m"}
	err := s.want(flags, "cat /vol/f; echo new >/vol/new; echo x 2>/dev/null >/ro/x; echo $?; df -k /scratch | tail -1 | awk '{print $2}'", "of the host1\n1024")
	if _, serr := os.Stat(filepath.Join(dir, "new")); err == nil && serr != nil {
		err = serr
	}
	return err
}

func checkFiles(s *trial) error {
	flags := []string{"--hostname", "web", "--add-host", "db:192.0.2.7", "--dns", "192.0.2.53", "--dns-search", "example.test"}
	for path, want := range map[string]string{
		"/etc/hostname":    "web\n",
		"/etc/hosts":       "192.0.2.7\tdb\n",
		"/etc/resolv.conf": "nameserver 192.0.2.53\n",
	} {
		out, err := s.sh(flags, "cat "+path)
		if err != nil {
			return err
		}
		if !strings.Contains(out+"\n", want) {
			return fmt.Errorf("%s: %q, want a line %q", path, out, want)
		}
		if st, err := os.Stat(s.root + path); err == nil && st.Size() != 0 { // an empty one is the mount point
			return fmt.Errorf("%s was written into the rootfs", path)
		}
	}
	return nil
}

// The only mounts are the container's own.
func checkPivot(s *trial) error {
	out, err := s.sh(nil, "cat /proc/self/mountinfo; ls -d /proc/1/root/marker >&2")
	if err != nil {
		return err
	}
	mounts := netsetuptest.ParseMounts(out)
	if len(mounts) == 0 || mounts[0].Point != "/" {
		return fmt.Errorf("the first mount is not the root:\n%s", out)
	}
	for _, m := range mounts[1:] {
		if m.Point == "/" || !slices.ContainsFunc([]string{"/proc", "/sys", "/dev", "/etc/"}, func(p string) bool { return strings.HasPrefix(m.Point, p) }) {
			return fmt.Errorf("a mount of somebody else's: %+v", m)
		}
	}
	return nil
}

func checkSysctls(s *trial) error {
	flags := []string{"--sysctl", "net.ipv4.ip_default_ttl=77", "--sysctl", "kernel.msgmax=4096"}
	return s.want(flags, "cd /proc/sys; cat net/ipv4/ip_default_ttl kernel/msgmax net/ipv4/ping_group_range", "77\n4096\n0\t2147483647")
}

func checkRestrict(s *trial) error {
	return s.want(nil, "stat -c %t:%T /proc/interrupts; ls /sys/firmware | wc -l; (echo 1 >/proc/sys/net/ipv4/ip_forward) 2>&1 | grep -c 'Read-only file system'", "1:3\n0\n1")
}

func checkReadonly(s *trial) error {
	text := "(: >/etc/new) 2>&1 | grep -c 'Read-only file system'; : >/vol/new && : >/dev/shm/new && echo volumes stay writable"
	return s.want([]string{"--read-only", "--volume", s.t.TempDir() + ":/vol"}, text, "1\nvolumes stay writable")
}

func checkUser(s *trial) error {
	return s.want([]string{"--user", "alice:staff"}, "id -u; id -g", "1000\n50")
}

func checkCredentials(s *trial) error {
	return s.want([]string{"--user", "alice"}, "id -u; id -g; id -G; echo $HOME; umask", "1000\n1001\n1001 29 50\n/home/alice\n0022")
}

func checkRlimits(s *trial) error {
	return s.want([]string{"--ulimit", "nofile=100:200", "--ulimit", "core=0"}, "ulimit -Sn; ulimit -Hn; ulimit -c", "100\n200\n0")
}

const defaultCaps = "00000000800425fb"

// An inheritable set of the caller's must not reach the program (CVE-2022-24769), nor an ambient one.
func checkCapabilities(s *trial) error {
	cmd := s.m.Command(with([]string{s.bin, "run", "--rootfs", s.root}, script("cat /proc/self/status"))...)
	cmd.Env = append(cmd.Env, s.env...)
	cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_RAW} // raises it in the inheritable set, too
	r := s.m.RunCmd(s.t, cmd)
	if r.Code != 0 {
		return fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	got := fields(r.Stdout)
	for key, want := range map[string]string{"CapEff": defaultCaps, "CapPrm": defaultCaps, "CapBnd": defaultCaps, "CapInh": noCaps, "CapAmb": noCaps} {
		if got[key] != want {
			return fmt.Errorf("%s: %s, want %s", key, got[key], want)
		}
	}
	return nil
}

const noCaps = "0000000000000000"

// Descriptors that the caller left open on the host's files (CVE-2024-21626) don't reach the program.
func checkDescriptors(s *trial) error {
	cmd := s.m.Command(with([]string{s.bin, "run", "--rootfs", s.root}, script("ls /proc/$$/fd; true"))...)
	cmd.Env = append(cmd.Env, s.env...)
	for range 20 {
		f, err := os.Open("/")
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return wantOutput(s.m.RunCmd(s.t, cmd), "0\n1\n2\n")
}

// checkAppArmor loads a profile that denies one file, and wants the program confined by it.
func checkAppArmor(s *trial) error {
	on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if strings.TrimSpace(string(on)) != "Y" {
		return errNotHere
	}
	const profile = "nsinit-test-denies"
	path := filepath.Join(s.t.TempDir(), "profile")
	write(s.t, path, "profile "+profile+" flags=(attach_disconnected,mediate_deleted) {\n  file,\n  capability,\n  signal,\n  deny /etc/passwd r,\n}\n")
	// The profile is the kernel's, for all the machine.
	s.m.Run(s.t, "apparmor_parser", "--replace", "--skip-cache", path).OK(s.t)
	flags := []string{"--security-opt", "apparmor=" + profile}
	return s.want(flags, "cat /proc/self/attr/current; cat /etc/passwd 2>/dev/null || echo denied", profile+" (enforce)\ndenied")
}
