package fs

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A volume is one of the user's mounts, understood.
type volume struct {
	target    string // inside, clean
	source    string // bind: on the host
	tmpfs     bool
	recursive bool           // bind: with what is mounted below source
	attr      unix.MountAttr // bind: for the whole tree
	params    []string       // tmpfs: "size=64m", ...
	tree      int            // bind: the detached clone of source; -1 = none (yet)
	kind      uint32         // the type bits of source's mode; a tmpfs is a directory
	procfs    bool           // bind: source is the root of a procfs
}

// parseVolume understands m, or says what is wrong with it.
func parseVolume(m *specs.Mount) (volume, error) {
	v := volume{tree: -1}
	if err := v.setTarget(m.Destination); err != nil {
		return v, err
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		return v, fmt.Errorf("%s: mounts with ID mappings of their own are not supported", v.target)
	}
	if err := v.setType(m); err != nil {
		return v, fmt.Errorf("%s: %w", v.target, err)
	}
	for _, o := range m.Options {
		if err := v.setOption(o); err != nil {
			return v, fmt.Errorf("%s: option %q: %w", v.target, o, err)
		}
	}
	return v, nil
}

func (v *volume) setTarget(name string) error {
	if err := checkPath("mount destination", name); err != nil {
		return err
	}
	v.target = path.Clean(name)
	if v.target == "/" {
		return fmt.Errorf("mount destination: %q: is the root itself; give a root file system instead", name)
	}
	for part := range strings.SplitSeq(v.target, "/") {
		if len(part) > unix.NAME_MAX {
			return fmt.Errorf("mount destination: %.32q...: has a part of %d bytes, at most %d are possible", name, len(part), unix.NAME_MAX)
		}
	}
	if strings.HasPrefix(v.target, "/proc/") && !mayCoverProc(v.target) {
		return fmt.Errorf("mount destination: %q: nothing may be mounted there: possible below /proc are %s", name, strings.Join(coverableProc(), ", "))
	}
	return nil
}

// setType decides between bind and tmpfs, and sets what each is by default: nodev, since there are no
// device rules yet; a tmpfs nosuid as well.
func (v *volume) setType(m *specs.Mount) error {
	bind := m.Type == "bind"
	if m.Type == "" || m.Type == "none" {
		for _, o := range m.Options {
			bind = bind || o == "bind" || o == "rbind"
		}
	}
	v.attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	switch {
	case bind:
		v.source, v.recursive = m.Source, true
		return checkPath("source", m.Source)
	case m.Type == "tmpfs":
		v.tmpfs, v.kind = true, unix.S_IFDIR
		v.attr.Attr_set |= unix.MOUNT_ATTR_NOSUID
		if v.target == "/proc" {
			return errors.New("a tmpfs can't stand in for /proc")
		}
		return nil
	case m.Type == "" || m.Type == "none":
		return errors.New("a mount needs a type (tmpfs) or the option bind or rbind")
	}
	return fmt.Errorf("type %q: only bind and tmpfs can be mounted", m.Type)
}

func (v *volume) setOption(o string) error {
	if key, value, ok := strings.Cut(o, "="); ok {
		return v.setParam(key, value)
	}
	if v.setAttrOption(o) {
		return nil
	}
	switch o {
	case "bind", "rbind":
		if v.tmpfs {
			return errors.New("is none of a tmpfs")
		}
		v.recursive = o == "rbind"
		return nil
	case "private", "rprivate":
		v.attr.Propagation = unix.MS_PRIVATE
		return nil
	case "slave", "rslave":
		v.attr.Propagation = unix.MS_SLAVE
		return nil
	case "shared", "rshared":
		v.attr.Propagation = unix.MS_SHARED
		return nil
	case "dev":
		return errors.New("devices on mounts are not possible: there are no device rules")
	}
	return errors.New("is unknown; possible are ro, rw, bind, rbind, [r]private, [r]slave, [r]shared, [no]suid, [no]exec, nodev, " +
		"relatime, noatime, nodiratime, strictatime, and for a tmpfs size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=")
}

// setAttrOption takes the options that are mount attributes; of two that contradict each other the later wins.
func (v *volume) setAttrOption(o string) bool {
	switch o {
	case "ro":
		v.set(unix.MOUNT_ATTR_RDONLY, true)
	case "rw":
		v.set(unix.MOUNT_ATTR_RDONLY, false)
	case "nosuid", "suid":
		v.set(unix.MOUNT_ATTR_NOSUID, o == "nosuid")
	case "noexec", "exec":
		v.set(unix.MOUNT_ATTR_NOEXEC, o == "noexec")
	case "nodev":
		v.set(unix.MOUNT_ATTR_NODEV, true)
	case "nodiratime":
		v.set(unix.MOUNT_ATTR_NODIRATIME, true)
	case "relatime":
		v.setAtime(unix.MOUNT_ATTR_RELATIME)
	case "noatime":
		v.setAtime(unix.MOUNT_ATTR_NOATIME)
	case "strictatime":
		v.setAtime(unix.MOUNT_ATTR_STRICTATIME)
	default:
		return false
	}
	return true
}

// set switches an attribute on, or no more on: what the source's own mount has stays (a bind is never less
// strict than what it is made of).
func (v *volume) set(bit uint64, on bool) {
	v.attr.Attr_set &^= bit
	if on {
		v.attr.Attr_set |= bit
	}
}

// setAtime: the three are one field, which mount_setattr wants cleared whole (mount_setattr(2)).
func (v *volume) setAtime(mode uint64) {
	v.attr.Attr_set = v.attr.Attr_set&^unix.MOUNT_ATTR__ATIME | mode
	v.attr.Attr_clr |= unix.MOUNT_ATTR__ATIME
}

// setParam takes the options of a tmpfs, checked here, so that nothing but these reaches the kernel.
func (v *volume) setParam(key, value string) error {
	if !v.tmpfs {
		return errors.New("options with a value are for a tmpfs")
	}
	var ok bool
	switch key {
	case "size":
		ok = isSize(strings.TrimSuffix(value, "%"))
	case "nr_inodes", "nr_blocks":
		ok = isSize(value)
	case "mode":
		_, err := strconv.ParseUint(value, 8, 12)
		ok = err == nil
	case "uid", "gid":
		id, err := strconv.ParseUint(value, 10, 32)
		ok = err == nil && id < 1<<32-1
	default:
		return errors.New("is unknown; possible are size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=")
	}
	if !ok {
		return errors.New("has a value that a tmpfs can't have: sizes are like 64m or 50%, modes octal, ids 0 to 4294967294")
	}
	v.params = append(v.params, key+"="+value)
	return nil
}

// isSize: digits and perhaps one of the kernel's suffixes.
func isSize(s string) bool {
	if n := len(s) - 1; n > 0 && strings.IndexByte("kKmMgGtT", s[n]) >= 0 {
		s = s[:n]
	}
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

// checkSource looks whether a bind's source is there.
func (v *volume) checkSource() error {
	if v.tmpfs {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(v.source, &st); err != nil {
		return fmt.Errorf("%s: source %s: %w", v.target, v.source, err)
	}
	return nil
}

// open clones the source, once: what is mounted later is what was found now.
func (v *volume) open() error {
	if v.tmpfs {
		return nil
	}
	fd, err := openAt2(unix.AT_FDCWD, v.source, unix.O_PATH, 0)
	if err != nil {
		return fmt.Errorf("volume %s: source %s: %w", v.target, v.source, err)
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("volume %s: source %s: %w", v.target, v.source, err)
	}
	v.kind, v.procfs = st.Mode&unix.S_IFMT, st.Ino == procRootIno && isProc(fd)
	if v.tree, err = cloneTree(fd, v.recursive); err != nil {
		return fmt.Errorf("volume %s: source %s: %w", v.target, v.source, err)
	}
	if err := setAttr(v.tree, true, &v.attr); err != nil {
		return fmt.Errorf("volume %s: source %s: %w", v.target, v.source, err)
	}
	return nil
}

func (v *volume) close() {
	if v.tree >= 0 {
		closeFD(v.tree)
		v.tree = -1
	}
}
