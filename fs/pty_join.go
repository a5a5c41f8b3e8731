package fs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenPty makes a terminal on the devpts at /dev/pts of the calling thread's mount namespace: that of a running
// container, which may have put anything there. Devpts is nil in the result.
func OpenPty() (*Pty, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/dev/pts", how)
	if err != nil {
		return nil, fmt.Errorf("terminal: /dev/pts: %w", err)
	}
	devpts := os.NewFile(uintptr(fd), "devpts")
	defer devpts.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, fmt.Errorf("terminal: /dev/pts: is no devpts")
	}
	p := new(Pty)
	if err := p.openOn(devpts); err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return p, nil
}
