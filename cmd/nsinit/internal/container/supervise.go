package container

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/signals"
	"golang.org/x/sys/unix"
)

// signalRelay passes the signals of the foreground on. Until the program runs, those that ask to end
// undo the start.
type signalRelay struct {
	h       *host
	caught  *signals.Caught
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

func relaySignals(h *host) *signalRelay {
	r := &signalRelay{h: h, caught: signals.Catch()}
	go r.relay()
	return r
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
	for s := range r.caught.C {
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
	h.signals.caught.CatchOthers()
	finish := h.attachTerminal()
	status, _ := h.wait(-1)
	finish()
	return program.ExitStatus(status)
}
