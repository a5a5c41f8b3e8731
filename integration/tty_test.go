package integration

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := func(term *terminal) unix.Termios { return term.settings(t) }
	term := newTerminal(t)
	settings := before(term)
	term.resize(t, 33, 77)
	cmd := m.command(with([]string{"run", "-ti", "--rootfs", newRootfs(t)}, script(`
		trap 'echo winch' WINCH
		tty; stty size; stat -c %t:%T /dev/console; echo TERM=$TERM; ls /dev/pts
		until stty size | grep -q '44 99'; do sleep 0.02; done; echo resized
		read line; echo "read $line"; exit 6`))...)
	cmd.Env = append(cmd.Env, "TERM=vt220")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr.Setctty = true
	p := m.Start(t, cmd)
	term.await(t, "TERM=")
	term.await(t, "33 77")
	term.resize(t, 44, 99)
	term.await(t, "resized")
	term.await(t, "winch")
	term.types(t, "hello\n")
	p.Wait(t).Want(t, 6)
	if now := term.settings(t); now != settings {
		t.Errorf("terminal left as %+v, was %+v", now, settings)
	}
	got := term.all(t)
	for _, want := range []string{"/dev/pts/0\r\n", "read hello\r\n", "88:0"} {
		if !strings.Contains(got, want) {
			t.Errorf("terminal shows %q, want %q", got, want)
		}
	}
}

// All that is written before the exit is shown.
func TestTerminalLosesNothing(t *testing.T) {
	t.Parallel()
	long(t)
	m := newMachine(t)
	const lines = 5000
	p, term := startOnTerminal(t, m, m.command(with([]string{"run", "-t", "--rootfs", newRootfs(t)}, script(fmt.Sprintf("seq %d", lines)))...))
	p.Wait(t).OK(t)
	got := strings.Fields(term.all(t))
	if len(got) != lines || got[lines-1] != fmt.Sprint(lines) {
		t.Errorf("%d lines were shown, want %d", len(got), lines)
	}
}

// Without a terminal of the caller's, -t still gives the program one.
func TestTerminalWithoutCallersTerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.run(t, with([]string{"-t", "--rootfs", newRootfs(t)}, script("tty; test -t 0 && test -t 1 && test -t 2 && echo all"))...).OK(t)
	if r.Stdout != "/dev/pts/0\r\nall\r\n" {
		t.Errorf("stdout %q", r.Stdout)
	}
}

// ^C typed by a person reaches the program by the terminal's line discipline inside, and the caller's terminal is raw
// meanwhile.
func TestTerminalInterrupt(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	term := newTerminal(t)
	settings := term.settings(t)
	cmd := m.command(with([]string{"run", "-ti", "--rootfs", newRootfs(t)}, script("trap 'echo interrupted; exit 8' INT; echo up; while :; do sleep 0.02; done"))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr.Setctty = true
	p := m.Start(t, cmd)
	term.await(t, "up")
	term.types(t, "\x03")
	p.Wait(t).Want(t, 8)
	if now := term.settings(t); now != settings {
		t.Errorf("terminal left as %+v, was %+v", now, settings)
	}
}

// A killed container leaves the caller's terminal as it was, too.
func TestTerminalRestoredAfterKill(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	term := newTerminal(t)
	settings := term.settings(t)
	cmd := m.command(with([]string{"run", "-ti", "--name", "a", "--rootfs", newRootfs(t)}, script("echo up; sleep 60"))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr.Setctty = true
	p := m.Start(t, cmd)
	term.await(t, "up")
	m.nsinit(t, "kill", "a", "KILL").OK(t)
	p.Wait(t).Want(t, 137)
	if now := term.settings(t); now != settings {
		t.Errorf("terminal left as %+v, was %+v", now, settings)
	}
}
