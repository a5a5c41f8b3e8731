package netsetup

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// loanDir has a bind mount of each namespace that has a device of the host, by the
// namespace's inode and the device's index inside. Its own lock is held wherever a
// device is on its way, so that nobody sees one that is half at home.
const loanDir = "/run/nsinit/devices"

func lockLoans() (unlock func(), err error) { return lockDir(loanDir, 0o700) }

func (l *loan) path() string {
	return loanDir + "/" + strconv.FormatUint(l.NetNS, 10) + "-" + strconv.Itoa(l.Index)
}

// hold keeps ns alive without any process in it, until release.
func (l *loan) hold(ns *NetNS) error {
	mounted, ours, err := nameState(l.path(), strconv.FormatUint(l.NetNS, 10))
	if err != nil || mounted && ours {
		return err
	}
	gate.Change()
	f, err := os.OpenFile(l.path(), os.O_RDONLY|os.O_CREATE, 0)
	if err != nil {
		return fmt.Errorf("hold the namespace: %w", err)
	}
	_ = f.Close()
	gate.Change()
	if err := bindNamespace(ns.fd(), l.path()); err != nil {
		return fmt.Errorf("hold the namespace: %w", err)
	}
	return nil
}

// held opens the namespace, nil if it isn't held: it never was, or not any more.
func (l *loan) held() (*NetNS, error) {
	mounted, ours, err := nameState(l.path(), strconv.FormatUint(l.NetNS, 10))
	if err != nil || !mounted || !ours {
		return nil, err
	}
	fd, err := unix.Open(l.path(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", l.path(), err)
	}
	return newNetNS(fd, l.path())
}

// release lets the namespace go. It can be killed at any point and done again.
func (l *loan) release() error {
	mounted, ours, err := nameState(l.path(), strconv.FormatUint(l.NetNS, 10))
	if err != nil || !ours {
		return err
	}
	if mounted {
		gate.Change()
		err := unix.Unmount(l.path(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%s: unmount: %w", l.path(), err)
		}
	}
	gate.Change()
	if err := unix.Unlink(l.path()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: remove: %w", l.path(), err)
	}
	return nil
}
