package fs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

func isPattern(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// expand returns the names below root that pattern stands for; a pattern without * ? [] stands for itself,
// whether it exists or not.
func expand(root int, pattern string) ([]string, error) {
	if !isPattern(pattern) {
		return []string{pattern}, nil
	}
	found := []string{""}
	for part := range strings.SplitSeq(inside(pattern), "/") {
		var next []string
		for _, dir := range found {
			names, err := matching(root, dir, part)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pattern, err)
			}
			for _, name := range names {
				next = append(next, dir+"/"+name)
			}
		}
		found = next
	}
	return found, nil
}

func matching(root int, dir, part string) ([]string, error) {
	if !isPattern(part) {
		return []string{part}, nil
	}
	names, err := listIn(root, dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	var found []string
	for _, name := range names {
		ok, merr := path.Match(part, name)
		if merr != nil {
			return nil, merr
		}
		if ok {
			found = append(found, name)
		}
	}
	return found, err
}

// listIn returns the names in a directory below root.
func listIn(root int, dir string) ([]string, error) {
	fd, err := openAt2(root, inside(dir), unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	return f.Readdirnames(-1)
}
