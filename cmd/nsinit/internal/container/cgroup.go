package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultCgroupParent = "/nsinit"
	cgroupPatience      = 2 * time.Second // for the kernel to take the last task out
)

// cgroupRoot is where the unified hierarchy is mounted: /sys/fs/cgroup, or below it on a hybrid
// host. It is "" where the host has none that can be written to.
func cgroupRoot() string {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC && st.Flags&unix.ST_RDONLY == 0 {
			return path
		}
	}
	return ""
}

// checkCgroupParent refuses what leads out of the hierarchy.
func checkCgroupParent(parent string) error {
	if strings.Contains("/"+parent+"/", "/../") || strings.ContainsRune(parent, 0) {
		return fmt.Errorf("%q: .. leads out of the cgroup hierarchy; leave it out", cutText(parent))
	}
	return nil
}

// makeCgroup makes the container's cgroup and opens it, for clone3(2). It owns nothing but the
// directory, which removeCgroup removes.
func makeCgroup(path string) (*os.File, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		err := os.Mkdir(path, 0o755)
		if errors.Is(err, os.ErrNotExist) {
			continue // the last one out removed the parent just now
		}
		if err != nil {
			return nil, err
		}
		dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, errors.Join(err, unix.Rmdir(path))
		}
		return dir, nil
	}
}

// killCgroup ends every process below path: by cgroup.kill (5.14). A cgroup that is gone has none.
func killCgroup(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeCgroup removes the cgroup at path and those that the container made below it. The kernel says EBUSY until
// the last task is gone.
func removeCgroup(path string) error {
	deadline := time.Now().Add(cgroupPatience)
	for wait := 200 * time.Microsecond; ; wait *= 2 {
		err := removeTree(path)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(wait)
	}
}

func removeTree(path string) error {
	err := unix.Rmdir(path)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, readErr := os.ReadDir(path)
	if readErr != nil {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	return nil
}

// cgroupPids lists the processes of the cgroup at path and below.
func cgroupPids(path string) (pids []int, err error) {
	data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for line := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if e.IsDir() {
			below, err := cgroupPids(filepath.Join(path, e.Name()))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return pids, err
			}
			pids = append(pids, below...)
		}
	}
	return pids, err
}
