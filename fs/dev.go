package fs

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What a container's /dev/shm holds if nothing else is asked.
const defaultShmSize = 64 << 20

// A node is a device that every container has.
type node struct {
	name         string
	major, minor uint32
}

func nodes() []node {
	return []node{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}
}

// mountDev makes /dev anew on a tmpfs, so that nothing that the root file system has there matters. Only
// this file system and the devpts have devices.
func (r *Root) mountDev(pty *Pty) error {
	target, err := r.systemDir("dev")
	if err != nil {
		return err
	}
	defer closeFD(target)
	params := withLabel(r.config.MountLabel, []string{"mode=755", "size=65536k"})
	dev, err := r.mountAt(target, "/dev", "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME, params...)
	if err != nil {
		return err
	}
	defer closeFD(dev)
	if err := r.makeNodes(dev); err != nil {
		return err
	}
	if r.null, err = openNode(dev, nodes()[0]); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if err := r.makeLinks(dev); err != nil {
		return err
	}
	if err := r.mountPts(dev, pty); err != nil {
		return err
	}
	return r.mountIPC(dev)
}

func (r *Root) makeNodes(dev int) error {
	for _, n := range nodes() {
		err := error(unix.EPERM)
		if !r.config.Userns {
			err = unix.Mknodat(dev, n.name, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor)))
		}
		if errors.Is(err, unix.EPERM) { // no device can be made in a user namespace, or without CAP_MKNOD
			err = bindNode(dev, n)
		}
		if err != nil {
			return fmt.Errorf("mount /dev: %s: %w", n.name, err)
		}
	}
	return nil
}

// bindNode mounts the host's device on an empty file.
func bindNode(dev int, n node) error {
	host, err := openAt2(unix.AT_FDCWD, "/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeFD(host)
	fd, err := openNode(host, n)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return bindFile(fd, dev, n.name, 0o666)
}

// bindFile mounts a copy of the file fd on a new empty file.
func bindFile(fd, dir int, name string, mode uint32) error {
	if err := unix.Mknodat(dir, name, unix.S_IFREG|mode, 0); err != nil {
		return err
	}
	target, err := openAt(dir, name)
	if err != nil {
		return err
	}
	defer closeFD(target)
	tree, err := cloneTree(fd, false)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	return attach(tree, target)
}

// openNode opens a device in dir, if it is the one that its name says.
func openNode(dir int, n node) (int, error) {
	fd, err := openAt(dir, n.name)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", n.name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("%s: %w", n.name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(n.major, n.minor) {
		closeFD(fd)
		return -1, fmt.Errorf("%s: is not character device %d:%d", n.name, n.major, n.minor)
	}
	return fd, nil
}

func (r *Root) makeLinks(dev int) error {
	links := [][2]string{
		{"ptmx", "pts/ptmx"},
		{"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"},
	}
	var st unix.Stat_t
	if unix.Fstatat(r.procDir, "kcore", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		links = append(links, [2]string{"core", "/proc/kcore"})
	}
	for _, l := range links {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("mount /dev: link %s: %w", l[0], err)
		}
	}
	return nil
}

// makeDir makes a directory of /dev to mount on.
func makeDir(dev int, name string) (int, error) {
	fd, err := makeIn(dev, name, 0o755)
	if err != nil {
		return -1, fmt.Errorf("mount /dev/%s: %w", name, err)
	}
	return fd, nil
}

// mountPts mounts the terminal's devpts, or a new one. The terminal is bound as /dev/console by its own
// descriptor: whatever its name in /dev/pts leads to is never asked.
func (r *Root) mountPts(dev int, pty *Pty) error {
	target, err := makeDir(dev, "pts")
	if err != nil {
		return err
	}
	defer closeFD(target)
	var devpts *os.File
	if pty != nil {
		devpts, pty.Devpts = pty.Devpts, nil
	} else if devpts, err = newDevpts(r.config.Userns, r.config.MountLabel); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	defer devpts.Close()
	if err := attach(int(devpts.Fd()), target); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if pty == nil {
		return nil
	}
	if err := bindFile(int(pty.Slave.Fd()), dev, "console", 0o600); err != nil {
		return fmt.Errorf("mount /dev/console: %w", err)
	}
	return nil
}

// mountIPC mounts what belongs to the IPC namespace.
func (r *Root) mountIPC(dev int) error {
	size := r.config.ShmSize
	if size == 0 {
		size = defaultShmSize
	}
	params := withLabel(r.config.MountLabel, []string{"mode=1777", "size=" + strconv.FormatInt(size, 10)})
	if err := r.mountIn(dev, "shm", "tmpfs", params...); err != nil {
		return err
	}
	return r.mountIn(dev, "mqueue", "mqueue")
}

func (r *Root) mountIn(dev int, name, fstype string, params ...string) error {
	target, err := makeDir(dev, name)
	if err != nil {
		return err
	}
	defer closeFD(target)
	fd, err := r.mountAt(target, "/dev/"+name, fstype, dataOnly, params...)
	if err != nil {
		return err
	}
	closeFD(fd)
	return nil
}
