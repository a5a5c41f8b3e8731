package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A machine is a test's host with nsinit on it.
type machine struct{ *netsetuptest.Host }

func newMachine(t testing.TB) *machine {
	t.Helper()
	return &machine{netsetuptest.NewHost(t)}
}

// nsinit runs `nsinit args...` to its end.
func (m *machine) nsinit(t testing.TB, args ...string) netsetuptest.Result {
	t.Helper()
	return m.Run(t, append([]string{nsinitBin}, args...)...)
}

// run is `nsinit run args...`.
func (m *machine) run(t testing.TB, args ...string) netsetuptest.Result {
	t.Helper()
	return m.nsinit(t, append([]string{"run"}, args...)...)
}

// command prepares `nsinit args...`.
func (m *machine) command(args ...string) *exec.Cmd {
	return m.Command(append([]string{nsinitBin}, args...)...)
}

// start starts `nsinit run args...`, which is killed when t ends.
func (m *machine) start(t testing.TB, args ...string) *netsetuptest.Process {
	t.Helper()
	return m.Start(t, m.command(append([]string{"run"}, args...)...))
}

// state is what `nsinit state` says that the tests look at.
type state struct {
	ID        string
	Status    string
	Pid       int
	Args      []string
	Rootfs    string
	Detached  bool
	NetnsName string
	Cgroup    string
	Networks  []struct {
		Network, IfName, HostIf, Bridge, MAC string
		MTU                                  int
		Addresses                            []string
	}
}

// A container is one that was started with -d.
type container struct {
	m   *machine
	id  string
	out string // the file that its output goes to
}

// detached starts a container with -d, and deletes it when t ends.
func (m *machine) detached(t testing.TB, name string, args ...string) *container {
	t.Helper()
	c := &container{m: m, id: name, out: filepath.Join(t.TempDir(), "out")}
	f, err := os.OpenFile(c.out, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := m.command(append([]string{"run", "-d", "--name", name}, args...)...)
	cmd.Stdout = f // a pipe would stay open as long as the container lives
	cmd.Stderr = f
	r := m.RunCmd(t, cmd)
	if r.Code != 0 {
		t.Fatalf("%s\nexit code %d: %s", strings.Join(r.Args, " "), r.Code, c.output(t))
	}
	t.Cleanup(func() { m.nsinit(t, "delete", "--force", name) })
	return c
}

// output is what was written so far, by nsinit and by the program.
func (c *container) output(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(c.out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (c *container) state(t testing.TB) state {
	t.Helper()
	return netsetuptest.Decode[state](t, c.m.nsinit(t, "state", c.id).OK(t))
}

// node is the container's network.
func (c *container) node(t testing.TB) *netsetuptest.Node {
	t.Helper()
	return c.m.Container(t, c.state(t).Pid)
}

// exec is `nsinit exec ID args...`.
func (c *container) exec(t testing.TB, args ...string) netsetuptest.Result {
	t.Helper()
	return c.m.nsinit(t, append([]string{"exec", c.id}, args...)...)
}

// applets are the names that busybox has.
var applets = sync.OnceValues(func() ([]string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: install busybox-static", err)
	}
	out, err := exec.Command(path, "--list").Output()
	return append([]string{path}, strings.Fields(string(out))...), err
})

// newRootfs makes a root file system with a static busybox and two users. It is the test's own.
func newRootfs(t testing.TB) string {
	t.Helper()
	names, err := applets()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, dir := range []string{"bin", "etc", "root", "home/alice", "usr/bin", "var/data", "mnt", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, root+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n")
	write(t, root+"/etc/group", "root:x:0:\nalice:x:1001:\nstaff:x:50:alice\naudio:x:29:root,alice\n")
	write(t, root+"/marker", t.Name()+"\n")
	if err := os.Chmod(root+"/tmp", 0o1777); err != nil {
		t.Fatal(err)
	}
	copyFile(t, names[0], root+"/bin/busybox")
	for _, name := range names[1:] {
		if name != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// script is the program of most tests: a shell that runs text.
func script(text string) []string { return []string{"--", "/bin/sh", "-c", text} }

// with puts argument lists together.
func with(lists ...[]string) []string { return slices.Concat(lists...) }

// oneLine checks the form of an error that nsinit prints: one line, with its name in front.
func oneLine(r netsetuptest.Result) error {
	if !strings.HasPrefix(r.Stderr, "nsinit: ") || strings.Count(r.Stderr, "\n") != 1 || !strings.HasSuffix(r.Stderr, "\n") {
		return fmt.Errorf("want one line of nsinit's, have stderr %q", r.Stderr)
	}
	return nil
}

// fields parses the lines "Key: value" of /proc/PID/status.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.Join(strings.Fields(v), " ")
		}
	}
	return m
}

func decode[T any](text string) (v T, err error) {
	err = json.Unmarshal([]byte(text), &v)
	return v, err
}
