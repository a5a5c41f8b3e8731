package netsetuptest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// leftovers returns what outlived the test's commands, once the kernel has had time: as long as there is less from look to
// look, and a while longer.
func (h *Host) leftovers(t testing.TB) []string {
	t.Helper()
	left := h.look()
	for still := time.Now(); len(left) > 0 && time.Since(still) < Patience/20; time.Sleep(10 * time.Millisecond) {
		now := h.look()
		if !slices.Equal(now, left) {
			left, still = now, time.Now()
		}
	}
	return left
}

func (h *Host) look() []string {
	procs, err := h.processLines()
	left := slices.Concat(procs, h.cgroupLines(), h.fileLines("/run/netns"))
	mounts, err2 := h.mountLines()
	for _, m := range minus(places(mounts), places(h.mounts)) {
		// `ip netns` itself makes /run/netns a mount of its own, for good.
		if m != "mount /run/netns: tmpfs" {
			left = append(left, m)
		}
	}
	if err := errors.Join(err, err2); err != nil {
		left = append(left, err.Error())
	}
	// The parent of all containers' cgroups may stay, and is no process's.
	return slices.DeleteFunc(left, func(l string) bool { return l == "cgroup /nsinit: " })
}

// places cuts mounts down to place and type: what a test does to options and propagation of a mount that was there is
// no leftover.
func places(mounts []string) []string {
	out := make([]string, len(mounts))
	for i, m := range mounts {
		out[i] = strings.Join(strings.Fields(m)[:3], " ")
	}
	return out
}

// processLines are the processes of the host but the holder.
func (h *Host) processLines() ([]string, error) {
	entries, err := os.ReadDir(h.Path("/proc"))
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range entries {
		if e.Name() == "1" || strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		status, err := os.ReadFile(h.Path("/proc/" + e.Name() + "/status"))
		if err != nil {
			continue // it ended
		}
		args, _ := os.ReadFile(h.Path("/proc/" + e.Name() + "/cmdline"))
		state := statusField(string(status), "State")
		lines = append(lines, fmt.Sprintf("process %s: %s %q", statusField(string(status), "Name"), state, strings.ReplaceAll(string(args), "\x00", " ")))
	}
	slices.Sort(lines)
	return lines, nil
}

func statusField(status, key string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// cgroupLines are the cgroups below the host's root but the session's.
func (h *Host) cgroupLines() []string {
	var lines []string
	_ = filepath.WalkDir(h.cgroup, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that goes meanwhile is not there
		}
		rel := strings.TrimPrefix(path, h.cgroup)
		if rel == "/"+sessionCgroup {
			return filepath.SkipDir
		}
		if rel != "" {
			procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			lines = append(lines, fmt.Sprintf("cgroup %s: %s", rel, count(string(procs), "process", "processes")))
		}
		return nil
	})
	return lines
}

func count(lines, one, many string) string {
	switch n := strings.Count(lines, "\n"); n {
	case 0:
		return ""
	case 1:
		return "1 " + one
	default:
		return fmt.Sprintf("%d %s", n, many)
	}
}

// mountLines are the host's mounts, without the numbers that the kernel gives them.
func (h *Host) mountLines() ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Pid()))
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if m, ok := parseMount(line); ok {
			// The host itself sees its cgroups from its own root.
			m.Root = strings.TrimPrefix(m.Root, "/"+filepath.Base(h.cgroup))
			lines = append(lines, fmt.Sprintf("mount %s: %s %s root=%s %s %s", m.Point, m.Type, m.Source, m.Root, m.Options, m.Propagation))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// A Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	Point       string // as the file writes it: space is \040
	Root        string // within its file system
	Options     string // of the mount
	Propagation string // shared, slave, ...; "" = private
	Type        string
	Source      string
	Super       string // options of the file system
}

// Has says whether the mount or its file system has option.
func (m Mount) Has(option string) bool {
	return slices.Contains(strings.Split(m.Options, ","), option) || slices.Contains(strings.Split(m.Super, ","), option)
}

// ParseMounts parses mountinfo, in its order: a later mount on the same point covers the earlier.
func ParseMounts(mountinfo string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(mountinfo) {
		if m, ok := parseMount(line); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

func parseMount(line string) (Mount, bool) {
	front, back, ok := strings.Cut(line, " - ")
	f, b := strings.Fields(front), strings.Fields(back)
	if !ok || len(f) < 6 || len(b) < 2 {
		return Mount{}, false
	}
	m := Mount{Root: f[3], Point: f[4], Options: f[5], Type: b[0], Source: b[1]}
	if len(b) > 2 {
		m.Super = b[2]
	}
	for _, tag := range f[6:] {
		name, _, _ := strings.Cut(tag, ":") // the number of the peer group is chance
		m.Propagation = strings.TrimSpace(m.Propagation + " " + name)
	}
	return m, true
}
