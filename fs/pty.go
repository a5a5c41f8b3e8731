package fs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Pty is a terminal of the container's own devpts. Who made it owns the descriptors.
type Pty struct {
	Devpts *os.File // the detached devpts; goes to Root.MountSystem, which takes it over and leaves nil
	Master *os.File // for the host side
	Slave  *os.File // for the program
}

// NewPty makes the container's devpts and a terminal on it. userns: in a user namespace, where the group
// of terminals may not be mapped.
func NewPty(userns bool) (*Pty, error) { return NewLabeledPty(userns, "") }

// NewLabeledPty is NewPty with an SELinux context for the devpts; "" = none.
func NewLabeledPty(userns bool, label string) (*Pty, error) {
	p := new(Pty)
	if err := p.open(userns, label); err != nil {
		p.Close()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return p, nil
}

func (p *Pty) open(userns bool, label string) (err error) {
	if p.Devpts, err = newDevpts(userns, label); err != nil {
		return err
	}
	return p.openOn(p.Devpts)
}

// openOn opens a terminal of devpts. Each devpts has its own ptmx, which works before the file system is attached anywhere.
func (p *Pty) openOn(devpts *os.File) error {
	how := &unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS}
	master, err := unix.Openat2(int(devpts.Fd()), "ptmx", how)
	if err != nil {
		return fmt.Errorf("ptmx: %w", err)
	}
	p.Master = os.NewFile(uintptr(master), "ptmx")
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	// The other end by the master, not by its name (TIOCGPTPEER, 4.13).
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("TIOCGPTPEER: %w", errno)
	}
	p.Slave = os.NewFile(slave, "pts")
	return nil
}

// Close closes what is left of p's descriptors.
func (p *Pty) Close() error {
	var err error
	for _, f := range []**os.File{&p.Devpts, &p.Master, &p.Slave} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	return err
}

// newDevpts makes a devpts, detached. Terminals belong to group 5, tty on all usual systems; where that
// isn't mapped (EINVAL), to their opener's.
func newDevpts(userns bool, label string) (*os.File, error) {
	params := withLabel(label, []string{"newinstance", "ptmxmode=0666", "mode=0620"})
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	fd, err := newMount("devpts", attrs, append(params, "gid=5")...)
	if errors.Is(err, unix.EINVAL) && userns {
		fd, err = newMount("devpts", attrs, params...)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "devpts"), nil
}
