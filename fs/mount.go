package fs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes of mounts that hold data only.
const dataOnly = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// newMount makes a superblock of type fstype and returns it as a mount that is attached nowhere, an O_PATH
// descriptor. Each param is "key=value" or a flag. The mount goes with its descriptor until it is attached.
func newMount(fstype string, attrs int, params ...string) (int, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return -1, fmt.Errorf("this kernel has no file system %s: %w", fstype, err)
	}
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer closeFD(ctx)
	for _, p := range append(params, "source="+fstype) { // the source is only shown
		if err := setParam(ctx, p); err != nil {
			return -1, contextError(ctx, fstype+": option "+p, err)
		}
	}
	if err := retry(func() error { return unix.FsconfigCreate(ctx) }); err != nil {
		return -1, contextError(ctx, "create "+fstype, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, contextError(ctx, "fsmount "+fstype, err)
	}
	return fd, nil
}

func setParam(ctx int, param string) error {
	if key, value, ok := strings.Cut(param, "="); ok {
		return unix.FsconfigSetString(ctx, key, value)
	}
	return unix.FsconfigSetFlag(ctx, param)
}

// contextError adds to err what the kernel wrote into the context, which says more than any errno.
func contextError(ctx int, what string, err error) error {
	var said []string
	buf := make([]byte, 512)
	for {
		n, rerr := unix.Read(ctx, buf) // one message a read; ENODATA when there is none left
		if rerr != nil || n <= 0 {
			break
		}
		// "e tmpfs: Bad value for 'size'": the letter is the severity.
		text := bytes.TrimSpace(buf[:n])
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		said = append(said, string(text))
	}
	if len(said) == 0 {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %s: %w", what, strings.Join(said, "; "), err)
}

// cloneTree returns a private copy of the mount that fd lies in, with fd as its root and attached nowhere;
// recursive takes the mounts below along.
func cloneTree(fd int, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.O_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	return tree, nil
}

// attach mounts the mount fd on target, a descriptor.
func attach(fd, target int) error {
	err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// setAttr changes the attributes of the mount fd, and of all below it if recursive. attr.Propagation 0 leaves
// the propagation.
func setAttr(fd int, recursive bool, attr *unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(fd, "", flags, attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}

// retry repeats call while a signal interrupts it: the Go runtime sends itself some.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func closeFD(fd int) { _ = unix.Close(fd) }
