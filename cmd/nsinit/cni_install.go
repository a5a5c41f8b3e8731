package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsinit/nsinit/netsetup/plugin"
)

func cniInstallVerb() verb {
	return verb{
		name: "cni install", form: "[flags] DIR", min: 1, max: 1,
		brief: "make links by which other runtimes call nsinit as their CNI plugins",
		about: `DIR gets a symbolic link to this binary for each plugin type that nsinit has: ` + strings.Join(plugin.Types(), ", ") + `. Links to this binary that are there already stay.

What else has one of the names is an error, and then nothing is changed, unless --force replaces it.`,
		examples: []example{
			{"nsinit cni install /opt/nsinit/cni", "a folder for CNI_PATH, or for plugin_dirs of containerd and podman"},
			{"nsinit cni install --force /opt/cni/bin", "in place of the reference plugins"},
		},
		setup: func(a *app) ([]group, action) {
			var force bool
			groups := []group{{"Flags", []flag{{
				name: "force", short: "f", help: "replace what has one of the names", set: toggle(&force),
			}}}}
			return groups, func(args []string) (int, error) { return 0, a.cniInstall(args[0], force) }
		},
	}
}

func (a *app) cniInstall(dir string, force bool) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	info, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("this binary: %w; a link would lead nowhere", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var missing []string
	var faults []error
	for _, name := range plugin.Types() {
		path := filepath.Join(dir, name)
		ours, err := linkTo(path, info, force)
		if faults = append(faults, err); !ours {
			missing = append(missing, path)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, path := range missing {
		if err := replaceLink(program, path); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(struct {
			Program string   `json:"program"`
			Made    []string `json:"made"`
		}{program, append([]string{}, missing...)})
	}
	return a.print(strings.Join(append(missing, ""), "\n"))
}

// linkTo tells whether path is a link to the program already. Without force all else that
// has the name is an error; a folder is one in any case.
func linkTo(path string, program fs.FileInfo, force bool) (bool, error) {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if there.Mode()&fs.ModeSymlink != 0 {
		if target, err := os.Stat(path); err == nil && os.SameFile(target, program) {
			return true, nil
		}
	}
	switch {
	case there.IsDir():
		return false, fmt.Errorf("%s: a folder; move it away", path)
	case !force:
		return false, fmt.Errorf("%s: is there, and no link to this binary; --force replaces it", path)
	}
	return false, nil
}

// replaceLink makes the link in one step: a runtime may look for the plugin at any moment.
func replaceLink(program, path string) error {
	fresh := fmt.Sprintf("%s.%d.new", path, os.Getpid())
	if err := os.Symlink(program, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}
