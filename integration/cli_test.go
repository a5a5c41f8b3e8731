package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	root := newRootfs(t)
	write(t, root+"/bin/plain", "echo not executable\n")
	write(t, root+"/bin/nonsense", "no program at all\n")
	write(t, root+"/bin/orphan", "#!/no/such/interpreter\n")
	for _, f := range []string{"nonsense", "orphan"} {
		if err := os.Chmod(filepath.Join(root, "bin", f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", root+"/bin/dangling"); err != nil {
		t.Fatal(err)
	}
	m.run(t, "--rootfs", root, "true").OK(t) // makes the state directory, and mount points in the rootfs
	before := m.Settled(t)
	for _, c := range []struct {
		code   int
		args   []string
		stderr string // what nsinit's one line holds; "" = it says nothing
	}{
		{0, []string{"true"}, ""},
		{1, []string{"false"}, ""},
		{42, script("exit 42"), ""},
		{255, script("exit 255"), ""},
		{143, script("trap 'exit 143' TERM; kill $$"), ""},
		{127, []string{"nosuchprogram"}, `"nosuchprogram"`},
		{127, []string{"/no/such/program"}, "/no/such/program"},
		{127, []string{"/etc/passwd/x"}, "/etc/passwd/x"},
		{127, []string{"/bin/dangling"}, "/bin/dangling"},
		{127, []string{"/bin/orphan"}, "/bin/orphan"},
		{126, []string{"/etc"}, "/etc"},
		{126, []string{"/bin/plain"}, "/bin/plain"},
		{126, []string{"plain"}, "plain"},
		{126, []string{"/bin/nonsense"}, "/bin/nonsense"},
		{125, []string{"--nosuchflag", "true"}, "--nosuchflag"},
		{125, []string{"--user", "nobodyknows", "true"}, "nobodyknows"},
		{125, []string{"--workdir", "/etc/passwd", "true"}, "/etc/passwd"},
		{125, []string{"--volume", "/no/such/source:/mnt", "true"}, "/no/such/source"},
		{125, []string{"--network", "nosuchnetwork", "true"}, "nosuchnetwork"},
	} {
		r := m.run(t, with([]string{"--rootfs", root}, c.args)...)
		if r.Code != c.code {
			t.Errorf("%v: exit code %d (%v), want %d; stderr %s", c.args, r.Code, r.Signal, c.code, r.Stderr)
			continue
		}
		if c.stderr == "" {
			if r.Stderr != "" {
				t.Errorf("%v: stderr %q", c.args, r.Stderr)
			}
		} else if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, c.stderr) {
			t.Errorf("%v: %v: stderr %q, want %s in it", c.args, err, r.Stderr, c.stderr)
		}
	}
	m.Await(t, before)
}

func TestStreams(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	root := newRootfs(t)
	r := m.run(t, with([]string{"--rootfs", root}, script("echo out; echo err >&2"))...).OK(t)
	if r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
	}
	// A megabyte, and the exit right after it: nothing is lost.
	const size = 1 << 20
	r = m.run(t, with([]string{"--rootfs", root}, script(fmt.Sprintf("head -c %d /dev/zero", size)))...).OK(t)
	if len(r.Stdout) != size {
		t.Errorf("%d bytes came out, want %d", len(r.Stdout), size)
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{{[]string{"-i"}, "hello"}, {nil, ""}} {
		cmd := m.command(with([]string{"run", "--rootfs", root}, c.flags, []string{"cat"})...)
		cmd.Stdin = strings.NewReader("hello")
		if r := m.RunCmd(t, cmd).OK(t); r.Stdout != c.want {
			t.Errorf("%v: %q of the standard input arrived, want %q", c.flags, r.Stdout, c.want)
		}
	}
}

// A reader that is gone is the program's affair: it gets SIGPIPE or EPIPE, as without a container.
func TestOutputToClosedPipe(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.command(with([]string{"run", "--rootfs", newRootfs(t), "--network", "bridge"}, script("trap '' PIPE; while echo x; do :; done 2>/dev/null; exit 9"))...)
	cmd.Stdout = w
	p := m.Start(t, cmd)
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	p.Wait(t).Want(t, 9)
}

func TestClosedStandardStreams(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	root := newRootfs(t)
	text := fmt.Sprintf("%s run --rootfs %s --network bridge -- /bin/sh -c 'exit 3' 0<&- 1>&- 2>&-; echo $?", nsinitBin, root)
	if got := m.Run(t, "sh", "-c", text).OK(t).Line(); got != "3" {
		t.Errorf("exit code %s without standard streams, want 3", got)
	}
}

func TestDetached(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", with([]string{"--rootfs", newRootfs(t), "--network", "bridge"}, script("echo to the caller; exec sleep 60"))...)
	netsetuptest.Poll(t, func() error {
		if out := c.output(t); !strings.Contains(out, "to the caller\n") {
			return fmt.Errorf("output %q", out)
		}
		return nil
	})
	s := c.state(t)
	if s.ID != "a" || s.Status != "running" || !s.Detached || len(s.Networks) != 1 || s.Pid == 0 {
		t.Errorf("state %+v", s)
	}
	netsetuptest.Poll(t, func() error {
		got, err := os.ReadFile(m.Path(fmt.Sprintf("/proc/%d/cmdline", s.Pid)))
		if err == nil && string(got) != "sleep\x0060\x00" {
			err = fmt.Errorf("process %d is %q", s.Pid, got)
		}
		return err
	})
	if parent := m.Run(t, "sh", "-c", "ps -o ppid= -o args= -A 2>/dev/null | grep -c '[n]sinit'").Line(); parent != "0" {
		t.Errorf("%s processes of nsinit stayed", parent)
	}
	if list := m.nsinit(t, "list", "--quiet").OK(t).Stdout; list != "a\n" {
		t.Errorf("list: %q", list)
	}
	m.nsinit(t, "kill", "a", "KILL").OK(t)
	netsetuptest.Poll(t, func() error {
		if s := c.state(t); s.Status != "stopped" {
			return fmt.Errorf("state after the kill: %+v", s)
		}
		return nil
	})
	m.nsinit(t, "delete", "a").OK(t)
	r := m.nsinit(t, "state", "a").Want(t, 125)
	if err := oneLine(r); err != nil {
		t.Error(err)
	}
	if list := m.nsinit(t, "list", "--quiet").OK(t).Stdout; list != "" {
		t.Errorf("list after delete: %q", list)
	}
}

func TestDeleteNeedsForceWhileRunning(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.detached(t, "a", "--rootfs", newRootfs(t), "--network", "bridge", "sleep", "60")
	if err := oneLine(m.nsinit(t, "delete", "a").Want(t, 125)); err != nil {
		t.Error(err)
	}
	m.nsinit(t, "delete", "--force", "a").OK(t)
	m.nsinit(t, "delete", "--force", "a").OK(t)
	if err := oneLine(m.nsinit(t, "delete", "a").Want(t, 125)); err != nil {
		t.Error(err)
	}
}

func TestNameIsTaken(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	root := newRootfs(t)
	m.detached(t, "a", "--rootfs", root, "--network", "bridge", "sleep", "60")
	before := m.Snapshot(t)
	r := m.run(t, "--rootfs", root, "--name", "a", "--network", "bridge", "true").Want(t, 125)
	if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "a") {
		t.Errorf("%v: %s", err, r.Stderr)
	}
	m.Await(t, before)
}

func TestUnknownContainer(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	for _, args := range [][]string{{"state", "x"}, {"kill", "x"}, {"delete", "x"}, {"exec", "x", "true"}, {"run", "--network", "container:x", "true"}} {
		r := m.nsinit(t, args...).Want(t, 125)
		if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "x") {
			t.Errorf("%v: %v: %q", args, err, r.Stderr)
		}
	}
}

// gc leaves alone what is in use.
func TestGCLeavesRunningContainersAlone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Outside(t)
	root := newRootfs(t)
	c := m.detached(t, "a", "--rootfs", root, "--network", "bridge", "--netns-name", "blue", "sleep", "60")
	p := m.start(t, with([]string{"--name", "b", "--rootfs", root, "--network", "bridge"}, script("echo up; sleep 60"))...)
	p.AwaitOutput(t, "up")
	before := m.Snapshot(t)
	m.nsinit(t, "gc").OK(t)
	if err := oneLine(m.nsinit(t, "gc", "--all").Want(t, 125)); err != nil { // nor would it take their bridge away
		t.Error(err)
	}
	if d := netsetuptest.Diff(before, m.Snapshot(t)); d != "" {
		t.Errorf("gc changed:\n%s", d)
	}
	if s := c.state(t); s.Status != "running" {
		t.Errorf("state %+v", s)
	}
	m.nsinit(t, "kill", "b", "KILL").OK(t)
	p.Wait(t).Want(t, 137)
}

func TestPidFile(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "pid")
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "--pid-file", file, "sleep", "60")
	got, err := os.ReadFile(file)
	if want := fmt.Sprint(c.state(t).Pid); err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("pid file %q, %v, want %s", got, err, want)
	}
	r := m.run(t, "--rootfs", newRootfs(t), "--pid-file", "/no/such/dir/pid", "true").Want(t, 125)
	if err := oneLine(r); err != nil || !strings.Contains(r.Stderr, "--pid-file") {
		t.Errorf("%v: %q", err, r.Stderr)
	}
}

// Process 1 is nsinit: it reaps orphans and the program is its child.
func TestInit(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	text := `(sh -c 'sleep 0.01' & ) ; sleep 0.2; echo $$ $(grep -l "^State:.Z" /proc/[0-9]*/status | wc -l) $PPID; exit 5`
	r := m.run(t, with([]string{"--rootfs", newRootfs(t), "--init"}, script(text))...).Want(t, 5)
	f := strings.Fields(r.Stdout)
	if len(f) != 3 || f[0] == "1" || f[1] != "0" || f[2] != "1" {
		t.Errorf("pid, zombies, parent: %q", r.Stdout)
	}
	// Without it the program is process 1, and orphans are its own to reap.
	r = m.run(t, with([]string{"--rootfs", newRootfs(t)}, script("echo $$"))...).OK(t)
	if r.Stdout != "1\n" {
		t.Errorf("pid %q without --init", r.Stdout)
	}
}

// With --init the program's privileges are no other than without.
func TestInitKeepsRestrictions(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, flags := range [][]string{nil, {"--init"}} {
		got := fields(m.run(t, with([]string{"--rootfs", newRootfs(t), "--user", "alice"}, flags, []string{"cat", "/proc/self/status"})...).OK(t).Stdout)
		for key, want := range map[string]string{"Uid": "1000 1000 1000 1000", "CapEff": noCaps, "CapBnd": defaultCaps, "CapInh": noCaps, "NoNewPrivs": "1", "SigBlk": noCaps, "SigIgn": noCaps} {
			if got[key] != want {
				t.Errorf("%v: %s: %s, want %s", flags, key, got[key], want)
			}
		}
	}
	// The init may not be a way to more: its own restrictions are the program's.
	got := fields(m.run(t, "--rootfs", newRootfs(t), "--user", "alice", "--init", "cat", "/proc/1/status").OK(t).Stdout)
	for key, want := range map[string]string{"Uid": "1000 1000 1000 1000", "CapPrm": noCaps, "CapBnd": defaultCaps, "NoNewPrivs": "1"} {
		if got[key] != want {
			t.Errorf("process 1: %s: %s, want %s", key, got[key], want)
		}
	}
}

func TestEnvironmentFlags(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	file := filepath.Join(t.TempDir(), "env")
	write(t, file, "# a comment\nA=of the file\nB=of the file\nFROM_CALLER\n")
	cmd := m.command("run", "--rootfs", newRootfs(t), "--env-file", file, "--env", "B=of the flag", "--env", "ALSO", "env")
	cmd.Env = append(cmd.Env, "FROM_CALLER=1", "ALSO=2", "NOT=3")
	got := strings.Split(m.RunCmd(t, cmd).OK(t).Line(), "\n")
	for _, want := range []string{"A=of the file", "B=of the flag", "FROM_CALLER=1", "ALSO=2"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
	if slices.Contains(got, "NOT=3") {
		t.Error("NOT was passed on")
	}
}

func TestTraceNamesEveryStep(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	names := stepNames(t, m)
	r := m.run(t, "--trace", "--rootfs", newRootfs(t), "--network", "bridge", "-p", "80", "echo", "hello").OK(t)
	if r.Stdout != "hello\n" {
		t.Errorf("stdout %q", r.Stdout)
	}
	for side, list := range names {
		for _, name := range list {
			if name == "console" || name == "root" || name == "netns-name" || name == "exec" {
				continue // not in this start, or over only when it can't be told
			}
			if !strings.Contains(r.Stderr, name) {
				t.Errorf("%s: the trace lacks %s:\n%s", side, name, r.Stderr)
			}
		}
	}
}

func TestHelpIsComplete(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	for _, verb := range []string{"run", "exec", "list", "state", "kill", "delete", "gc", "version", "help"} {
		help := m.nsinit(t, "help", verb).OK(t)
		if flag := m.nsinit(t, verb, "--help").OK(t); flag.Stdout != help.Stdout || help.Stdout == "" || help.Stderr != "" {
			t.Errorf("%s: help %q, --help %q", verb, help.Stdout, flag.Stdout)
		}
	}
	m.nsinit(t).Want(t, 125)
	m.nsinit(t, "nosuchverb").Want(t, 125)
}

func TestVersion(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	if out := m.nsinit(t, "version").OK(t).Stdout; !strings.Contains(out, "nsinit") {
		t.Errorf("version: %q", out)
	}
	netsetuptest.Decode[map[string]any](t, m.nsinit(t, "version", "--json").OK(t))
}
