package inside

import (
	"errors"
	"fmt"
	"os"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/lsm"
	"github.com/nsinit/nsinit/netsetup"
	"golang.org/x/sys/unix"
)

// configureNetwork is the container half of every strategy, loopback included. What the kernel does of it later is
// waited for before the program runs.
func (p *process) configureNetwork() error {
	if !p.start.Loopback && len(p.start.Networks) == 0 {
		return nil
	}
	in, err := netsetup.OpenInside()
	if err != nil {
		return err
	}
	p.network = in
	if err := p.openProcfs(); err != nil {
		return err
	}
	in.UseProcfs(p.procfs)
	if p.start.Loopback {
		if err := netsetup.ConfigureLoopback(in, 0); err != nil {
			return err
		}
	}
	for _, a := range p.start.Networks {
		if err := netsetup.Configure(in, a); err != nil {
			return fmt.Errorf("network %q: %w", a.Network, err)
		}
	}
	return nil
}

func (p *process) makePrivate() error { return fs.MakePrivate() }

func (p *process) openRoot() (err error) {
	if err := p.openProcfs(); err != nil {
		return err
	}
	p.tree, err = fs.Open(&p.start.Root, p.root, p.procfs)
	return err
}

// openProcfs is for the first step that needs a procfs.
func (p *process) openProcfs() (err error) {
	if p.procfs == nil {
		p.procfs, err = fs.NewProcfs()
	}
	return err
}

func (p *process) mountSystem() error { return p.tree.MountSystem(p.pty) }
func (p *process) mountUser() error   { return p.tree.MountUser() }
func (p *process) writeFiles() error  { return p.tree.WriteFiles() }
func (p *process) pivot() error       { return p.tree.Pivot() }
func (p *process) restrict() error    { return p.tree.Restrict() }
func (p *process) setReadonly() error { return p.tree.SetReadonly() }

func (p *process) setHostname() error {
	if p.start.Hostname == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(p.start.Hostname)); err != nil {
		return fmt.Errorf("%q: %w", p.start.Hostname, err)
	}
	return nil
}

func (p *process) writeSysctls() error {
	for _, s := range p.start.Sysctls {
		if err := p.tree.WriteSysctl(s.Key, s.Value); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) lookUpUser() (err error) {
	p.user, err = creds.LookupUser(p.tree.Dir(), p.start.User)
	return err
}

func (p *process) setRlimits() error { return creds.SetRlimits(p.start.Rlimits) }
func (p *process) applyAppArmor() error {
	return lsm.ApplyAppArmor(p.tree.Proc(), p.start.LSM.AppArmor)
}

func (p *process) applySELinux() error {
	return lsm.ApplySELinux(p.tree.Proc(), p.start.LSM.ProcessLabel)
}
func (p *process) dropBounding() error { return creds.DropBounding(p.start.Capabilities.Bounding) }
func (p *process) closeOnExec() error  { return creds.CloseOnExec() }

func (p *process) setUser() error {
	unix.Umask(int(p.start.Umask))
	if p.pty != nil {
		if err := p.pty.Slave.Chown(int(p.user.UID), -1); err != nil {
			return fmt.Errorf("console: %w", err)
		}
	}
	return creds.SetUser(p.user)
}

// changeDir enters the working directory as the user: what it may not enter it may not start in.
func (p *process) changeDir() error {
	dir := p.start.Cwd
	err := program.Enter(dir)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = program.Enter(dir)
		}
	}
	return err
}

func (p *process) setCapabilities() error { return creds.SetCapabilities(p.start.Capabilities) }

func (p *process) setNoNewPrivs() error {
	if !p.start.NoNewPrivs {
		return nil
	}
	return creds.SetNoNewPrivs()
}
