package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cantBeWritten wants the binary that pid was executed from to be one that nobody can open for writing: the host's own
// would only be busy (ETXTBSY) for as long as it runs. Its other form, a sealed memfd, can be opened.
func cantBeWritten(pid int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/exe", pid), os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = f.WriteString("x")
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("write to the binary of %d: %w", pid, err)
	}
	return nil
}

// What runs on the container's side of nsinit, or can be executed from there as /proc/self/exe, is a copy (CVE-2019-5736).
func TestBinaryCannotBeWritten(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	reaper := m.start(t, "--name", "target", "--init", "--rootfs", newRootfs(t), "--", "sh", "-c", "echo up; sleep 1000")
	reaper.AwaitOutput(t, "up")
	for _, pid := range children(reaper.Cmd.Process.Pid) {
		if err := cantBeWritten(pid); err != nil {
			t.Errorf("nsinit as PID 1: %v", err)
		}
	}
	enters := m.Start(t, m.command("exec", "target", "sh", "-c", "echo in; sleep 1000"))
	enters.AwaitOutput(t, "in")
	if err := cantBeWritten(enters.Cmd.Process.Pid); err != nil {
		t.Errorf("nsinit exec: %v", err)
	}
	m.nsinit(t, "delete", "--force", "target").OK(t)
	reaper.Wait(t)
	enters.Wait(t)
}

// ALL and names in any case mean for exec what they mean for run, on top of what the container has.
func TestExecCapabilities(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "caps", "--cap-drop", "kill", "--rootfs", newRootfs(t), "--", "sleep", "1000")
	all := fields(m.run(t, "--privileged", "--", "cat", "/proc/self/status").OK(t).Stdout)["CapBnd"]
	for _, tt := range []struct{ flags, want string }{
		{"", "00000000800425db"},
		{"--cap-drop=ALL", noCaps},
		{"--cap-drop=all --cap-add=Net_Admin", "0000000000001000"},
		{"--cap-drop=cap_chown", "00000000800425da"},
		{"--cap-add=KILL", defaultCaps},
		{"--cap-add=ALL", all},
		{"--privileged", all},
	} {
		r := m.nsinit(t, with([]string{"exec"}, strings.Fields(tt.flags), []string{c.id, "cat", "/proc/self/status"})...).OK(t)
		got := fields(r.Stdout)
		if got["CapBnd"] != tt.want || got["CapEff"] != tt.want || got["CapInh"] != noCaps {
			t.Errorf("%q: CapBnd %s, CapEff %s, CapInh %s, want %s", tt.flags, got["CapBnd"], got["CapEff"], got["CapInh"], tt.want)
		}
	}
	m.nsinit(t, "exec", "--cap-add", "KILL", "--cap-drop", "KILL", c.id, "true").Want(t, 125)
}

// A terminal's output whose reader goes away does not stop the program, and one whose reader is slow loses nothing.
func TestTerminalWhoseReaderIsGoneOrSlow(t *testing.T) {
	t.Parallel()
	long(t)
	m, root := newMachine(t), newRootfs(t)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.command(with([]string{"run", "-t", "--rootfs", root}, script("sleep 0.3; seq 50000; exit 5"))...)
	cmd.Stdout = in
	p := m.Start(t, cmd)
	_ = errors.Join(in.Close(), out.Close())
	p.Wait(t).Want(t, 5)

	if out, in, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	const lines = 60000
	cmd = m.command(with([]string{"run", "-t", "--rootfs", root}, script(fmt.Sprintf("seq %d", lines)))...)
	cmd.Stdout = in
	p = m.Start(t, cmd)
	_ = in.Close()
	time.Sleep(3 * time.Second)
	got, err := io.ReadAll(out)
	p.Wait(t).OK(t)
	if n := strings.Count(string(got), "\n"); err != nil || n != lines {
		t.Errorf("%d of %d lines, %v", n, lines, err)
	}
}

// What is left of a line at the end of the input is read, and then the end.
func TestTerminalInputWithoutNewline(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := m.command("run", "-it", "--rootfs", newRootfs(t), "--", "cat")
	cmd.Stdin = strings.NewReader("abc")
	r := m.RunCmd(t, cmd).OK(t)
	if !strings.Contains(r.Stdout, "abc") {
		t.Errorf("stdout %q", r.Stdout)
	}
}

// With -d and -t nsinit stays for the terminal alone: the caller goes on, its terminal is its own, and what the container holds goes
// with delete.
func TestDetachedTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := m.command(with([]string{"run", "-dit", "--name", "bg", "--rootfs", newRootfs(t)}, script("tty; read x; echo end; sleep 0.2"))...)
	cmd.Stdout, cmd.Stderr = log, log
	m.RunCmd(t, cmd).OK(t)
	m.nsinit(t, "state", "bg").OK(t)
	m.nsinit(t, "delete", "--force", "bg").OK(t)
	text, err := os.ReadFile(log.Name())
	if err != nil || !strings.Contains(string(text), "bg\n") || !strings.Contains(string(text), "/dev/pts/0") {
		t.Errorf("log %q, %v", text, err)
	}
	if r := m.nsinit(t, "exec", "-dt", "bg", "true").Want(t, 125); !strings.Contains(r.Stderr, "--tty") {
		t.Errorf("stderr %q", r.Stderr)
	}
}

// gc and short runs of one name beside each other: neither takes what is the other's.
func TestCollectBesideRuns(t *testing.T) {
	t.Parallel()
	long(t)
	m, root := newMachine(t), newRootfs(t)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			for _, verb := range []string{"gc", "list"} {
				var out strings.Builder
				cmd := m.Command(nsinitBin, verb)
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := runOn(m, cmd); err != nil {
					done <- fmt.Errorf("%s: %w: %s", verb, err, out.String())
					return
				}
			}
		}
	}()
	for range 40 {
		if r := m.run(t, "--name", "one", "--rootfs", root, "--", "sh", "-c", "echo here; exit 3"); r.Code != 3 || r.Stdout != "here\n" || r.Stderr != "" {
			t.Errorf("exit code %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func runOn(m *machine, cmd *exec.Cmd) error {
	return m.DoInside(cmd.Run)
}
