// Package fs builds what a container sees as its file system, by descriptor on the new mount API and
// openat2, so that no path of the container is resolved outside its root, or twice.
package fs

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errTodo = errors.New("not built yet")

// Config is what is asked.
type Config struct {
	Root          string        // the rootfs; "" = the host's root under a throwaway overlay
	Readonly      bool          // the root itself read-only; volumes keep their own flags
	NoPivot       bool          // MS_MOVE and chroot instead of pivot_root
	Mounts        []specs.Mount // the user's: bind and tmpfs, in order
	Files         []File        // made for the container, bind-mounted: /etc/hosts, /etc/resolv.conf, /etc/hostname
	MaskedPaths   []string
	ReadonlyPaths []string
	MountLabel    string   // SELinux context of new superblocks
	Hidden        []string // throwaway overlay: host paths that the container must not see (files and directories)
	Privileged    bool     // /sys and /proc/sys writable
	HostNet       bool     // sysfs can't be mounted anew for a network namespace that isn't ours... bind it read-only
	Userns        bool     // the mount namespace belongs to a user namespace
	Cgroup        bool     // mount /sys/fs/cgroup
	ShmSize       int64    // bytes; 0 = 64 MiB
}

// A File is a small file made for the container.
type File struct {
	Path    string // inside
	Content []byte
	Mode    uint32
}

// Validate finds every fault of c that can be seen without touching anything.
func (c *Config) Validate() error { return errTodo }

// A Host is what the host side prepares and hands over: descriptors that the init can't make itself.
type Host struct{ Root *os.File }

// PrepareUserns builds the root for a container in the user namespace userns, on the host side: the rootfs
// or the throwaway overlay, ID-mapped. The caller owns the detached mount.
func PrepareUserns(c *Config, userns *os.File) (root *os.File, err error) { return nil, errTodo }

// A Pty is a terminal of the container's own devpts.
type Pty struct {
	Devpts *os.File // the detached devpts; goes to Root.MountSystem
	Master *os.File // for the host side
	Slave  *os.File // for the program
}

// NewPty makes the container's devpts and a terminal on it.
func NewPty(userns bool) (*Pty, error) { return nil, errTodo }

// MakePrivate cuts the mount namespace off from the host's.
func MakePrivate() error { return errTodo }

// Root is the container's root while it is built. It owns its descriptors.
type Root struct{}

// Open makes the root mount: the rootfs, the throwaway overlay, or prepared (may be nil).
func Open(c *Config, prepared *os.File) (*Root, error) { return nil, errTodo }

// MountSystem mounts proc, sysfs, cgroup2, /dev with its nodes and links, devpts, shm, mqueue. pty may be nil; else its slave
// becomes /dev/console.
func (r *Root) MountSystem(pty *Pty) error { return errTodo }

// MountUser mounts the user's volumes and tmpfs, in order.
func (r *Root) MountUser() error { return errTodo }

// WriteFiles makes Config.Files and mounts each.
func (r *Root) WriteFiles() error { return errTodo }

// Pivot makes the root the root of the mount namespace and detaches the host's.
func (r *Root) Pivot() error { return errTodo }

// Restrict masks and write-protects Config's paths.
func (r *Root) Restrict() error { return errTodo }

// SetReadonly write-protects the root itself, if asked.
func (r *Root) SetReadonly() error { return errTodo }

// Dir returns the root as an O_PATH descriptor, owned by r.
func (r *Root) Dir() *os.File { return nil }

// Proc returns a procfs of the container's pid namespace that is mounted nowhere, owned by r.
func (r *Root) Proc() *os.File { return nil }

// WriteSysctl writes one sysctl through Proc.
func (r *Root) WriteSysctl(key, value string) error { return errTodo }
