package inside

import (
	"fmt"
	"os"
	"syscall"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"golang.org/x/sys/unix"
)

func (p *process) findProgram() (err error) {
	p.env = p.start.Env
	if _, ok := os.LookupEnv("HOME"); !ok {
		p.env = append(p.env, "HOME="+p.user.Home)
	}
	p.path, err = program.LookPath(p.start.Args[0], os.Getenv("PATH"))
	return err
}

// exec becomes the program, from the main thread: any other one would lose the parent-death signal. The sync
// pipe closes by close-on-exec, which tells the host side that the program runs.
func (p *process) exec() error {
	if err := p.settleNetwork(); err != nil {
		return err
	}
	if err := p.setDeathSignal(); err != nil {
		return err
	}
	if err := p.conn.Send(wire.Exec, nil); err != nil {
		return err
	}
	if p.start.Init {
		return p.becomeReaper()
	}
	return program.ExecError(p.path, syscall.Exec(p.path, p.start.Args, p.env))
}

// settleNetwork waits for what the kernel does of the network beside all other steps.
func (p *process) settleNetwork() error {
	if p.network == nil {
		return nil
	}
	if err := p.network.Settle(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return nil // its socket closes by close-on-exec
}

// setDeathSignal has a foreground container die with its host side. The change of user has cleared what clone
// set (prctl(2), PR_SET_PDEATHSIG), and the host side may have died in between: then its end of the
// sync pipe is closed. In a new pid namespace getppid(2) can't tell.
func (p *process) setDeathSignal() error {
	sig := unix.SIGKILL
	if p.start.Detach {
		sig = 0
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	fds := []unix.PollFd{{Fd: int32(p.conn.FD()), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0 {
		return errParentDied
	}
	return nil
}

// becomeReaper executes nsinit once more, with the program's own credentials: it stays as PID 1 and the program is
// its child. The threads of this process that still have root's credentials end with the exec. The sync pipe stays open
// until the reaper has started the program.
func (p *process) becomeReaper() error {
	if _, err := unix.FcntlInt(SyncFD, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep the sync pipe: %w", err)
	}
	terminal := ""
	if p.start.Terminal {
		terminal = "terminal"
	}
	args := append([]string{reaperArgv0, terminal, p.path}, p.start.Args...)
	return fmt.Errorf("nsinit as PID 1: %w", syscall.Exec("/proc/self/exe", args, p.env))
}
