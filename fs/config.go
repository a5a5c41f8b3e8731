package fs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Config is what is asked.
type Config struct {
	Root          string        // the rootfs; "" = the host's root under a throwaway overlay
	Readonly      bool          // the root itself read-only; volumes keep their own flags
	NoPivot       bool          // MS_MOVE and chroot instead of pivot_root
	Mounts        []specs.Mount // the user's: bind and tmpfs, in order
	Files         []File        // made for the container, bind-mounted: /etc/hosts, /etc/resolv.conf, /etc/hostname
	MaskedPaths   []string      // hidden by an empty file or directory; may hold * ? [] patterns; nothing if Privileged
	ReadonlyPaths []string      // write-protected with all below them; nothing if Privileged
	MountLabel    string        // SELinux context of new superblocks; "" = none
	Hidden        []string      // throwaway overlay: host paths that the container must not see (files and directories); patterns as above
	Privileged    bool          // /sys, /sys/fs/cgroup and /proc/sys writable, Masked- and ReadonlyPaths not looked at
	HostNet       bool          // the network namespace is the host's: where sysfs can't be mounted for it, the host's is bound read-only
	Userns        bool          // the mount namespace belongs to a user namespace
	Cgroup        bool          // mount /sys/fs/cgroup
	ShmSize       int64         // bytes; 0 = 64 MiB
}

// A File is a small file made for the container.
type File struct {
	Path    string // inside
	Content []byte
	Mode    uint32 // permission bits; 0 = 0644
}

// Validate finds every fault of c that can be seen without touching anything. It looks at the host's
// files, but opens none.
func (c *Config) Validate() error {
	faults := []error{c.checkRoot()}
	for i := range c.Mounts {
		v, err := parseVolume(&c.Mounts[i])
		if err == nil {
			err = v.checkSource()
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("mounts[%d]: %w", i, err))
		}
	}
	faults = append(faults, c.checkFiles())
	faults = append(faults, checkPaths("masked path", c.MaskedPaths), checkPaths("read-only path", c.ReadonlyPaths))
	faults = append(faults, checkPaths("hidden path", c.Hidden))
	if strings.IndexByte(c.MountLabel, 0) >= 0 {
		faults = append(faults, fmt.Errorf("mount label: %q: has a NUL byte", c.MountLabel))
	}
	if c.ShmSize < 0 {
		faults = append(faults, fmt.Errorf("shm size: %d: is negative", c.ShmSize))
	}
	return errors.Join(faults...)
}

func (c *Config) checkRoot() error {
	if c.Root == "" {
		return nil
	}
	if err := checkPath("root file system", c.Root); err != nil {
		return err
	}
	var st, host unix.Stat_t
	if err := unix.Stat(c.Root, &st); err != nil {
		return fmt.Errorf("root file system: %s: %w", c.Root, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("root file system: %s: is %s, not a directory", c.Root, kind(st.Mode))
	}
	if err := unix.Stat("/", &host); err != nil {
		return fmt.Errorf("root file system: /: %w", err)
	}
	return refuseHostRoot(c.Root, &st, &host)
}

// refuseHostRoot: a container on the host's own root would mount over the host's /etc and leave mount
// points behind.
func refuseHostRoot(name string, root, host *unix.Stat_t) error {
	if root.Dev == host.Dev && root.Ino == host.Ino {
		return fmt.Errorf("root file system: %s: is the host's own root; name none to get the host's files under a throwaway overlay", name)
	}
	return nil
}

func (c *Config) checkFiles() error {
	var faults []error
	for i, f := range c.Files {
		if err := checkPath("file", f.Path); err != nil {
			faults = append(faults, err)
			continue
		}
		for _, other := range c.Files[:i] {
			if path.Clean(other.Path) == path.Clean(f.Path) {
				faults = append(faults, fmt.Errorf("file: %s: is given twice", f.Path))
			}
		}
	}
	return errors.Join(faults...)
}

func checkPaths(what string, paths []string) error {
	var faults []error
	for _, p := range paths {
		err := checkPath(what, p)
		if err == nil {
			err = checkPattern(what, p)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func checkPattern(what, p string) error {
	if _, err := path.Match(p, ""); err != nil {
		return fmt.Errorf("%s: %q: is not a pattern", what, p)
	}
	return nil
}

// checkPath refuses what the kernel would cut short or refuse less clearly.
func checkPath(what, p string) error {
	switch {
	case p == "":
		return fmt.Errorf("%s: is empty", what)
	case strings.IndexByte(p, 0) >= 0:
		return fmt.Errorf("%s: %q: has a NUL byte", what, p)
	case p[0] != '/':
		return fmt.Errorf("%s: %q: is not an absolute path", what, p)
	case len(p) >= unix.PathMax:
		return fmt.Errorf("%s: %.32q...: is %d bytes long, at most %d are possible", what, p, len(p), unix.PathMax-1)
	}
	return nil
}
