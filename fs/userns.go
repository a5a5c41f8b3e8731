package fs

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// PrepareUserns builds the root for a container in the user namespace userns, on the host side: the rootfs
// or the throwaway overlay, ID-mapped. The caller owns the detached mount; Open takes it over in the init.
func PrepareUserns(c *Config, userns *os.File) (root *os.File, err error) {
	if userns == nil {
		return nil, errors.New("root file system: ID mapping needs a user namespace")
	}
	if c.Root != "" {
		return openRootfs(c, userns)
	}
	err = inPrivateMounts(func() error {
		root, err = prepareOverlay(c, userns)
		return err
	})
	return root, err
}

// inPrivateMounts runs f on a thread of its own, in a mount namespace of its own that goes with the thread:
// an overlay's layers must be attached somewhere before 6.14, and nowhere on the host.
func inPrivateMounts(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the goroutine's end ends the thread, and with it the namespace.
		runtime.LockOSThread() //nolint:forbidigo // a thread for one mount namespace, which ends with it
		if unix.Gettid() == unix.Getpid() {
			// The main thread can't end, and what /proc says of the process is what it says of this thread.
			// While it is held, another one takes over.
			defer runtime.UnlockOSThread() //nolint:forbidigo // unchanged: only held
			done <- inPrivateMounts(f)
			return
		}
		done <- privately(f)
	}()
	return <-done
}

func privately(f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { //nolint:forbidigo // see inPrivateMounts
		return fmt.Errorf("mount namespace: unshare: %w", err)
	}
	if err := MakePrivate(); err != nil {
		return err
	}
	return f()
}

func prepareOverlay(c *Config, userns *os.File) (*os.File, error) {
	defer unix.Umask(unix.Umask(0)) // this thread's alone: unshare has given it its own (CLONE_FS)
	procfs, err := NewProcfs()
	if err != nil {
		return nil, err
	}
	defer procfs.Close()
	o := overlay{config: c, proc: int(procfs.Fd()), userns: userns}
	defer o.close()
	if err := o.open(); err != nil {
		return nil, err
	}
	scratch, err := newScratch()
	if err != nil {
		return nil, err
	}
	defer closeFD(scratch)
	root, err := o.build(scratch)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tree, err := cloneTree(int(root.Fd()), true)
	if err != nil {
		return nil, fmt.Errorf("throwaway overlay: %w", err)
	}
	return os.NewFile(uintptr(tree), "root"), nil
}
