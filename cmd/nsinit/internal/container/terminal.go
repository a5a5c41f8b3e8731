package container

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func terminalSize() wire.Winsize {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			return wire.Winsize{Rows: ws.Row, Cols: ws.Col}
		}
	}
	return wire.Winsize{}
}

// resizeTo gives the container's terminal the size of the caller's.
func resizeTo(master *os.File) {
	if s := terminalSize(); s.Rows > 0 {
		_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	}
}

// attachTerminal connects the container's terminal with the caller's, which it puts into raw mode. The returned
// function waits for the last output and gives the caller's terminal back as it was.
func (h *host) attachTerminal() (finish func()) {
	if h.master == nil {
		return func() {}
	}
	resizeTo(h.master)
	return copyTerminal(h.master, h.signals.caught.C, h.spec.Interactive)
}

// copyTerminal needs the channel of caught signals: an output that nobody reads any more must not end nsinit by SIGPIPE
// before the container.
func copyTerminal(master *os.File, caught chan<- os.Signal, interactive bool) (finish func()) {
	signal.Notify(caught, unix.SIGPIPE)
	restore := func() {}
	if fd := int(os.Stdin.Fd()); interactive && term.IsTerminal(fd) {
		if old, err := term.MakeRaw(fd); err == nil {
			restore = func() { _ = term.Restore(fd, old) }
		}
	}
	if interactive {
		go copyInput(master)
	}
	out := output{done: make(chan struct{})}
	go out.copy(master)
	return func() {
		out.drain()
		restore()
	}
}

// output is the copy of a terminal's output to ours.
type output struct {
	done    chan struct{}
	waiting atomic.Int64 // since when the copy waits for the terminal, in nanoseconds; 0 while it writes
}

// drainPatience bounds the wait for a terminal's last output: the line discipline hands it over at once, unless somebody
// outside the container holds the terminal open.
const drainPatience = 2 * time.Second

// copy ends with EIO, which is how a terminal says that its last user has closed it. When our own output is gone it reads
// on, so that the program isn't stopped by a terminal that is full.
func (o *output) copy(master *os.File) {
	defer close(o.done)
	buf := make([]byte, 32<<10)
	lost := false
	for {
		o.waiting.Store(time.Now().UnixNano())
		n, err := master.Read(buf)
		o.waiting.Store(0)
		if n > 0 && !lost {
			_, writeErr := os.Stdout.Write(buf[:n])
			lost = writeErr != nil
		}
		if err != nil {
			return
		}
	}
}

// drain waits for the end of the output, for as long as it takes to write it.
func (o *output) drain() {
	for {
		select {
		case <-o.done:
			return
		case <-time.After(drainPatience / 20):
		}
		if since := o.waiting.Load(); since != 0 && time.Now().UnixNano()-since > int64(drainPatience) {
			return
		}
	}
}

// copyInput passes standard input on. At its end the program gets the terminal's end-of-file character: it ends
// a line first that has no end yet, and says end of file then.
func copyInput(master *os.File) {
	last := lastByte{w: master, b: '\n'}
	_, err := io.Copy(&last, onlyReader{os.Stdin})
	if err != nil && !errors.Is(err, io.EOF) {
		return
	}
	const eof = "\x04"
	if last.b != '\n' {
		_, _ = master.WriteString(eof)
	}
	_, _ = master.WriteString(eof)
}

// lastByte remembers what was written last.
type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

// onlyReader hides WriteTo: splice(2) on a terminal is refused.
type onlyReader struct{ io.Reader }
