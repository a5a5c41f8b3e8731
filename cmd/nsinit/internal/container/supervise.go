package container

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"golang.org/x/sys/unix"
)

// signalRelay passes the signals of the foreground on. Until the program runs, those that ask to end
// undo the start.
type signalRelay struct {
	h       *host
	ch      chan os.Signal
	pidfd   atomic.Int32 // the init's, 0 while there is none
	mu      sync.Mutex
	running bool             // signals are the program's
	execing bool             // the init has nothing left to do but to become the program
	held    []syscall.Signal // came in between, for the program
	asked   int              // how many of those asked for the end
	sig     syscall.Signal   // that ended the start
}

// insist is how many signals that ask to end a program may ignore before it is killed: PID 1 of a container ignores
// what it doesn't handle (pid_namespaces(7)).
const insist = 3

// caughtSignals are signals that are caught, or soon will be.
type caughtSignals struct {
	ch  chan os.Signal
	all chan struct{} // closed when they are
}

// CatchSignals begins to catch the signals that Run passes on; Run does it if nobody has. The Go runtime switches
// threads several times for each of them, which costs two milliseconds: called early, they pass beside other work.
func (r *Runtime) CatchSignals() {
	if r.caught != nil {
		return
	}
	s := &caughtSignals{ch: make(chan os.Signal, 64), all: make(chan struct{})}
	r.caught = s
	go func() {
		notify(s.ch)
		close(s.all)
	}()
}

// relaySignals returns when all of commonSignals are caught.
func relaySignals(h *host) *signalRelay {
	h.CatchSignals()
	<-h.caught.all
	r := &signalRelay{h: h, ch: h.caught.ch}
	go r.relay()
	return r
}

// commonSignals are caught from the first moment, the others once a program has turned out to stay: the Go runtime switches
// threads several times for each signal that it begins to catch, which would cost a short program more than its
// whole network.
var commonSignals = [...]os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}

const otherSignalsAfter = 100 * time.Millisecond

func notify(ch chan<- os.Signal) { signal.Notify(ch, commonSignals[:]...) }

// notifyAll catches the other signals, too, after a while.
func notifyAll(ch chan<- os.Signal) {
	time.AfterFunc(otherSignalsAfter, func() { signal.Notify(ch) })
}

// interrupted returns the signal that ended the start, or 0.
func (r *signalRelay) interrupted() syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sig
}

// settle ends the start: from here on signals are the program's. It returns the one that came before, or 0.
func (r *signalRelay) settle() syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = true
	for _, sig := range r.held {
		r.send(sig)
	}
	r.held = nil
	return r.sig
}

// hold keeps what comes from now on for the program, which may run before the host side has seen that it does.
func (r *signalRelay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.execing = true
}

// interrupt tells whether the start was still under way when sig came, and keeps the first that ends it.
func (r *signalRelay) interrupt(sig syscall.Signal, ends bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return false
	}
	if r.execing {
		r.held = append(r.held, sig)
		if ends {
			r.asked++
		}
		if r.asked >= insist { // execve(2) hangs
			r.send(unix.SIGKILL)
		}
		return true
	}
	if ends && r.sig == 0 {
		r.sig = sig
		r.send(unix.SIGKILL)
	}
	return true
}

func (r *signalRelay) relay() {
	asked := 0
	for s := range r.ch {
		sig := s.(syscall.Signal)
		ends := sig == unix.SIGINT || sig == unix.SIGTERM || sig == unix.SIGHUP || sig == unix.SIGQUIT
		switch {
		case sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGPIPE:
		case r.interrupt(sig, ends):
		case sig == unix.SIGWINCH && r.h.master != nil:
			resizeTo(r.h.master)
		default:
			if ends {
				asked++
			}
			if asked >= insist {
				sig = unix.SIGKILL
			}
			r.send(sig)
		}
	}
}

// watch tells the relay whom the signals are for. One that came before is delivered now.
func (r *signalRelay) watch(pidfd *os.File) {
	r.pidfd.Store(int32(pidfd.Fd()))
	if r.interrupted() != 0 {
		r.send(unix.SIGKILL)
	}
}

func (r *signalRelay) send(sig syscall.Signal) {
	if fd := r.pidfd.Load(); fd != 0 {
		_ = unix.PidfdSendSignal(int(fd), sig, nil, 0)
	}
}

// supervise stays with a foreground container until its end and returns its exit code.
func (h *host) supervise() int {
	notifyAll(h.signals.ch)
	finish := h.attachTerminal()
	status, _ := h.wait(-1)
	finish()
	return program.ExitStatus(status)
}
