package netsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// allowlistFile has a regular expression a line: the settings that a network may
// change, for all of CNI's tuning plugins on the machine. Without the file all may.
const allowlistFile = "/etc/cni/tuning/allowlist.conf"

// An allowlist is what such a file says; nil permits everything.
type allowlist []alternatives

// readAllowlist reads path. What can't be understood permits nothing.
func readAllowlist(path string) (*allowlist, error) {
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return &allowlist{}, fmt.Errorf("allow-list of settings: %w", err)
	}
	var list allowlist
	var faults []error
	for i, line := range strings.Split(string(src), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, err := parsePattern(line)
		if err != nil {
			faults = append(faults, faultf(path+":"+strconv.Itoa(i+1), line, "%w", err))
			continue
		}
		list = append(list, p)
	}
	return &list, errors.Join(faults...)
}

func (l *allowlist) permits(key string) bool {
	if l == nil {
		return true
	}
	for _, p := range *l {
		if p.in([]rune(key)) {
			return true
		}
	}
	return false
}
