package inside

import (
	"fmt"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"github.com/nsinit/nsinit/fs"
	"golang.org/x/sys/unix"
)

func (p *process) hasTerminal() bool { return p.start.Terminal }

// takeConsole makes a terminal on the container's own devpts, makes it standard input, output and
// error, and gives its other end to the host side. No path is opened for it: the slave comes from
// TIOCGPTPEER (ioctl_tty(2)), so that no link in the rootfs can stand in for it (CVE-2025-52565).
func (p *process) takeConsole() error {
	pty, err := fs.NewPty(p.start.Userns)
	if err != nil {
		return err
	}
	p.pty = pty
	if s := p.start.Size; s.Rows > 0 && s.Cols > 0 {
		size := unix.Winsize{Row: s.Rows, Col: s.Cols}
		if err := unix.IoctlSetWinsize(int(pty.Master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
			return fmt.Errorf("set window size: %w", err)
		}
	}
	for fd := range 3 {
		if err := unix.Dup3(int(pty.Slave.Fd()), fd, 0); err != nil {
			return fmt.Errorf("dup console to %d: %w", fd, err)
		}
	}
	if err := p.conn.Send(wire.Console, nil, int(pty.Master.Fd())); err != nil {
		return err
	}
	return pty.Master.Close()
}

// JoinNewKeyring gives the calling thread a session keyring of its own, so that the caller's keys aren't the
// container's (session-keyring(7)). A kernel without keyrings has none to give.
func JoinNewKeyring() error {
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS {
		return fmt.Errorf("join a session keyring: %w", errno)
	}
	return nil
}

// startSession leaves the caller's session, so that the container has no hold on its terminal
// (TIOCSTI), and takes its own terminal if it has one.
func (p *process) startSession() error {
	// A process that leads its group already can't start a session; a fresh child never does.
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("setsid: %w", err)
	}
	if err := JoinNewKeyring(); err != nil {
		return err
	}
	if !p.start.Terminal {
		return nil
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take the controlling terminal: %w", err)
	}
	return nil
}
