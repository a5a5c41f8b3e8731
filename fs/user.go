package fs

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// MountUser mounts the user's volumes and tmpfs, in order: a later one may lie in an earlier one, or cover it.
func (r *Root) MountUser() error {
	defer unix.Umask(unix.Umask(0))
	for i := range r.volumes {
		v := &r.volumes[i]
		if err := r.mountVolume(v); err != nil {
			return fmt.Errorf("volume %s: %w", v.target, err)
		}
		v.close()
	}
	return nil
}

func (r *Root) mountVolume(v *volume) error {
	target, err := r.openTarget(v.target, v.kind, v.procfs)
	if err != nil {
		return err
	}
	defer closeFD(target)
	if v.tmpfs {
		params := withLabel(r.config.MountLabel, slices.Clone(v.params))
		if v.tree, err = newMount("tmpfs", int(v.attr.Attr_set), params...); err != nil {
			return err
		}
		if err := setAttr(v.tree, false, &unix.MountAttr{Propagation: v.attr.Propagation}); err != nil {
			return err
		}
	}
	if err := attach(v.tree, target); err != nil {
		return err
	}
	return r.notice(v, target)
}

// notice keeps the system's directories known where a volume covers one of them whole.
func (r *Root) notice(v *volume, target int) error {
	for _, dir := range []*int{&r.procDir, &r.sysDir} {
		same, err := sameFile(*dir, target)
		if err != nil {
			return err
		}
		if same {
			closeFD(*dir)
			*dir, v.tree = v.tree, -1
			return nil
		}
	}
	return nil
}

func sameFile(a, b int) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}

// openTarget opens, or makes, what a mount of the given kind goes on.
func (r *Root) openTarget(name string, mode uint32, procfs bool) (int, error) {
	target, err := makeTarget(r.fd(), name, isDir(mode))
	if err != nil {
		return -1, err
	}
	err = r.checkProc(target, procfs)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(target, &st)
	}
	if err == nil && isDir(st.Mode) != isDir(mode) {
		err = fmt.Errorf("mount point %s: is %s, and %s can't be mounted on it", name, kind(st.Mode), kind(mode))
	}
	if err != nil {
		closeFD(target)
		return -1, err
	}
	return target, nil
}

// covered tells whether the user mounts something on exactly name.
func (r *Root) covered(name string) bool {
	name = path.Clean(name)
	return slices.ContainsFunc(r.volumes, func(v volume) bool { return v.target == name })
}
