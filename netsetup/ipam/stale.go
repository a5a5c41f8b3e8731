package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nsinit/nsinit/netsetup"
)

// Stale returns the leases of the default networks that were taken before boot by containers that known
// doesn't know: no container outlives a reboot, and their records, which do not either, can't name them any more.
// Other networks' leases may be of tools that bring their containers back, and are left alone.
func Stale(boot time.Time, known func(id string) bool) ([]netsetup.Object, error) {
	return staleIn(DefaultDir, boot, known)
}

func staleIn(dir string, boot time.Time, known func(id string) bool) (stale []netsetup.Object, err error) {
	for _, network := range []string{DefaultName, DefaultPtP} {
		files, readErr := os.ReadDir(filepath.Join(dir, network))
		if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
			err = errors.Join(err, readErr)
		}
		for _, f := range files {
			if _, notAddress := netip.ParseAddr(f.Name()); notAddress != nil {
				continue
			}
			info, statErr := f.Info()
			content, readErr := os.ReadFile(filepath.Join(dir, network, f.Name()))
			if statErr != nil || readErr != nil || !info.ModTime().Before(boot) {
				continue // given back meanwhile, or of this boot
			}
			if id, ifname := parseLease(content); id != "" && !known(id) {
				stale = append(stale, netsetup.Object{Kind: "lease", Network: network, Name: f.Name(), Owner: id, Dir: dir, IfName: ifname})
			}
		}
	}
	return stale, err
}

// BootTime returns when the kernel was started, by its clock now (proc_stat(5), btime).
func BootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range bytes.Lines(data) {
		if s, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			seconds, err := strconv.ParseInt(string(bytes.TrimSpace(s)), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat: no btime")
}
