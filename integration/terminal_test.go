package integration

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A terminal is the caller's: what a person looks at and types into.
type terminal struct {
	master, slave *os.File
	mu            sync.Mutex
	seen          strings.Builder
	done          chan struct{}
}

// startOnTerminal starts cmd in a session of its own on a new terminal.
func startOnTerminal(t testing.TB, m *machine, cmd *exec.Cmd) (*netsetuptest.Process, *terminal) {
	t.Helper()
	term := newTerminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	return m.Start(t, cmd), term
}

func newTerminal(t testing.TB) *terminal {
	t.Helper()
	term := &terminal{done: make(chan struct{})}
	var err error
	if term.master, term.slave, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	go term.read()
	t.Cleanup(func() {
		term.slave.Close()
		<-term.done
		term.master.Close()
	})
	return term
}

func (term *terminal) read() {
	defer close(term.done)
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		term.seen.Write(buf[:n])
		term.mu.Unlock()
		if err != nil {
			return // EIO: the last slave was closed
		}
	}
}

// text is what was shown so far.
func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// all closes the test's own slave and returns all that was shown, when everybody else has closed theirs.
func (term *terminal) all(t testing.TB) string {
	t.Helper()
	term.slave.Close()
	netsetuptest.Poll(t, func() error {
		select {
		case <-term.done:
			return nil
		default:
			return errors.New("somebody still has the terminal open")
		}
	})
	return term.text()
}

// await waits until text was shown.
func (term *terminal) await(t testing.TB, text string) {
	t.Helper()
	netsetuptest.Poll(t, func() error {
		if got := term.text(); !strings.Contains(got, text) {
			return errors.New("the terminal shows " + got + ", not " + text)
		}
		return nil
	})
}

// types is what a person types.
func (term *terminal) types(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(term.master, text); err != nil {
		t.Fatal(err)
	}
}

func (term *terminal) resize(t testing.TB, rows, cols uint16) {
	t.Helper()
	if err := pty.Setsize(term.master, &pty.Winsize{Rows: rows, Cols: cols}); err != nil {
		t.Fatal(err)
	}
}

// settings are the terminal's modes.
func (term *terminal) settings(t testing.TB) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}
