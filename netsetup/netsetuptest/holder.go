package netsetuptest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// holderEnv marks the execution of the test binary that is process 1 of a Host.
const holderEnv = "NSINIT_TEST_HOLDER"

// init turns the test binary into a holder before any test machinery runs. It is no function for
// TestMain to call, since a package that forgot the call would start its tests in each holder.
func init() {
	if os.Getenv(holderEnv) == "" {
		return
	}
	if err := furnish(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	go reap()
	// The test's process holds the other end: end-of-file is its end, whatever ended it.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// reap takes the exit status of orphans, as process 1 has to.
func reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for range died {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}

// furnish turns the new namespaces into a machine.
func furnish() error {
	unix.Umask(0o022)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount private: %w", err)
	}
	// What would be covered is removed: it would still show in mountinfo, before what covers it.
	if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount: /proc: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := enterSession(); err != nil {
		return err
	}
	if err := mountSys(); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs: %s: %w", dir, err)
		}
	}
	if err := unix.Sethostname([]byte("host")); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	return furnishNetwork()
}

// enterSession moves the holder out of the root of its cgroup namespace, where the rule "no processes
// in inner nodes" would forbid controllers. Commands of the test join it there.
func enterSession() error {
	root, err := unifiedMount()
	if err != nil {
		return err
	}
	// The mount is the machine's still, where the path is the machine's as well.
	dir := filepath.Join(root, os.Getenv(holderEnv), sessionCgroup)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// mountSys mounts a sysfs that shows the new network namespace, and in it the cgroup hierarchies at
// the places where the machine has them: the unified one seen from the new namespace, those of v1
// as they are.
func mountSys() error {
	unified, err := unifiedMount()
	if err != nil {
		return err
	}
	old, err := unix.OpenTree(unix.AT_FDCWD, cgroupTop, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open_tree: %s: %w", cgroupTop, err)
	}
	defer unix.Close(old)
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount: /sys: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	// Most kernels have only one of them, or none.
	_ = unix.Mount("securityfs", "/sys/kernel/security", "securityfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	_ = unix.Mount("selinuxfs", "/sys/fs/selinux", "selinuxfs", unix.MS_NOSUID|unix.MS_NOEXEC, "")
	if unified != cgroupTop { // hybrid: keep the v1 hierarchies around it
		if err := unix.MoveMount(old, "", unix.AT_FDCWD, cgroupTop, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("move_mount: %s: %w", cgroupTop, err)
		}
		if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("umount: %s: %w", unified, err)
		}
	}
	if err := unix.Mount("cgroup2", unified, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %s: %w", unified, err)
	}
	return nil
}

// furnishNetwork brings lo up and undoes what a new namespace inherits from the machine.
func furnishNetwork() error {
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := os.WriteFile("/proc/sys/net/"+key, []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has no such file
			return err
		}
	}
	return linkUp("lo")
}

// linkUp brings up an interface of the calling thread's namespace.
func linkUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set up: %s: %w", name, err)
	}
	return nil
}

const (
	cgroupTop     = "/sys/fs/cgroup"
	sessionCgroup = "session" // where the holder and the test's commands are, below the Host's root
	cgroupPrefix  = "nsinit-test-"
)

// unifiedMount is where the machine has cgroup v2: alone, or beside v1 as systemd's hybrid layout.
func unifiedMount() (string, error) {
	for _, dir := range []string{cgroupTop, filepath.Join(cgroupTop, "unified")} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no cgroup2 file system on %s or %s", cgroupTop, strings.Join([]string{cgroupTop, "unified"}, "/"))
}
