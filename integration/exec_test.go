package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestExecIsInside(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "--network", "bridge", "sleep", "60")
	pid := c.state(t).Pid
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts", "cgroup", "user"} {
		want := m.Run(t, "readlink", fmt.Sprintf("/proc/%d/ns/%s", pid, ns)).OK(t).Line()
		if got := c.exec(t, "readlink", "/proc/self/ns/"+ns).OK(t).Line(); got != want {
			t.Errorf("%s namespace %s, want the container's %s", ns, got, want)
		}
	}
	got := c.exec(t, "sh", "-c", "cat /marker; grep 0:: /proc/self/cgroup; cut -d' ' -f6 /proc/self/stat").OK(t).Stdout
	if !strings.HasPrefix(got, t.Name()+"\n0::/\n") {
		t.Errorf("inside: %q, want the container's root and cgroup", got)
	}
	procs, err := os.ReadFile(m.Cgroup() + "/nsinit/a/cgroup.procs")
	if err != nil || strings.Count(string(procs), "\n") != 1 {
		t.Errorf("cgroup afterwards: %q, %v", procs, err)
	}
}

func TestExecRestrictions(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "--cap-drop", "NET_RAW", "--env", "OF_RUN=1", "--workdir", "/var/data", "--ulimit", "nofile=99:99", "sleep", "60")
	status := fields(c.exec(t, "cat", "/proc/self/status").OK(t).Stdout)
	const noRaw = "00000000800405fb"
	for key, want := range map[string]string{
		"CapInh": noCaps, "CapPrm": noRaw, "CapEff": noRaw, "CapBnd": noRaw, "CapAmb": noCaps, "NoNewPrivs": "1", "Umask": "0022",
		"SigBlk": noCaps, "SigIgn": noCaps,
	} {
		if status[key] != want {
			t.Errorf("%s: %s, want %s", key, status[key], want)
		}
	}
	if got := c.exec(t, "sh", "-c", "pwd; echo $OF_RUN $HOME; ulimit -n; ls /proc/$$/fd; true").OK(t).Stdout; got != "/var/data\n1 /root\n99\n0\n1\n2\n" {
		t.Errorf("directory, environment, limit, descriptors: %q", got)
	}
}

func TestExecFlags(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.detached(t, "a", "--rootfs", newRootfs(t), "--env", "A=1", "sleep", "60")
	ex := func(args ...string) string { return m.nsinit(t, with([]string{"exec"}, args)...).OK(t).Line() }
	if got := ex("--user", "alice", "a", "sh", "-c", "id -u; id -g; id -G; echo $HOME"); got != "1000\n1001\n1001 29 50\n/home/alice" {
		t.Errorf("--user alice: %q", got)
	}
	if got := fields(ex("--user", "alice", "a", "cat", "/proc/self/status")); got["CapEff"] != noCaps || got["CapPrm"] != noCaps || got["CapBnd"] != defaultCaps {
		t.Errorf("--user alice: capabilities %s %s %s", got["CapEff"], got["CapPrm"], got["CapBnd"])
	}
	if got := ex("--env", "A=2", "--env", "B=3", "--workdir", "/tmp", "a", "sh", "-c", "echo $A $B $PWD"); got != "2 3 /tmp" {
		t.Errorf("--env, --workdir: %q", got)
	}
	if got := fields(ex("--cap-add", "NET_ADMIN", "a", "cat", "/proc/self/status")); got["CapEff"] != "00000000800435fb" || got["CapInh"] != noCaps {
		t.Errorf("--cap-add NET_ADMIN: %s, inheritable %s", got["CapEff"], got["CapInh"])
	}
	cmd := m.command("exec", "-i", "a", "cat")
	cmd.Stdin = strings.NewReader("typed")
	if got := m.RunCmd(t, cmd).OK(t).Stdout; got != "typed" {
		t.Errorf("-i: %q", got)
	}
}

func TestExecExitCodes(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "sleep", "60")
	for code, args := range map[int][]string{
		0: {"true"}, 3: {"sh", "-c", "exit 3"}, 137: {"sh", "-c", "kill -9 $$"}, 143: {"sh", "-c", "kill $$"}, 127: {"nosuchprogram"}, 126: {"/etc"},
	} {
		r := c.exec(t, args...)
		if r.Code != code {
			t.Errorf("%v: exit code %d, want %d; %s", args, r.Code, code, r.Stderr)
		}
		if code == 126 || code == 127 {
			if err := oneLine(r); err != nil {
				t.Errorf("%v: %v", args, err)
			}
		}
	}
	m.nsinit(t, "kill", "a", "KILL").OK(t)
	netsetuptest.Poll(t, func() error { // until then a program may still enter, and be killed
		if s := c.state(t).Status; s != "stopped" {
			return errors.New(s)
		}
		return nil
	})
	m.nsinit(t, "exec", "a", "true").Want(t, 125)
}

func TestExecOnTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.detached(t, "a", "--rootfs", newRootfs(t), "sleep", "60")
	p, term := startOnTerminal(t, m, m.command("exec", "-ti", "a", "sh", "-c", "tty; stty size; read x; echo got $x; exit 4"))
	term.await(t, "/dev/pts/")
	term.types(t, "line\n")
	p.Wait(t).Want(t, 4)
	if got := term.all(t); !strings.Contains(got, "got line") {
		t.Errorf("terminal shows %q", got)
	}
}
