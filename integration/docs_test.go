package integration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// Every block of the documents that starts with "```console # runs" is run, each document on a machine of its own: what
// stands after "$ " by the shell, and then the printed lines have to hold the lines below it, in order. "..." stands for
// anything, blanks for one blank. A command has to succeed unless its lines say otherwise. "# runs with ipvlan" stands
// on blocks that take a kernel with such devices.

// A session is one block.
type session struct {
	line     int
	device   string // a kind of network device that it needs
	commands []shellCommand
}

type shellCommand struct {
	text string
	want []string
}

const runsMark = "```console # runs"

func sessionsOf(text string) (all []session) {
	inside := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case line == runsMark || strings.HasPrefix(line, runsMark+" with "):
			inside = true
			all = append(all, session{line: i + 1, device: strings.TrimPrefix(strings.TrimPrefix(line, runsMark), " with ")})
		case !inside:
		case line == "```":
			inside = false
		default:
			s := &all[len(all)-1]
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				s.commands = append(s.commands, shellCommand{text: command})
			} else if n := len(s.commands); n > 0 {
				s.commands[n-1].want = append(s.commands[n-1].want, line)
			}
		}
	}
	return all
}

// missing returns the first wanted line that is not among the printed ones, in order.
func (c *shellCommand) missing(printed string) string {
	lines := strings.Split(printed, "\n")
	for _, want := range c.want {
		i := slices.IndexFunc(lines, func(line string) bool { return matches(squeeze(want), squeeze(line)) })
		if i < 0 {
			return want
		}
		lines = lines[i+1:]
	}
	return ""
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// matches compares a line with a pattern in which "..." stands for anything.
func matches(pattern, line string) bool {
	first, rest, more := strings.Cut(pattern, "...")
	line, ok := strings.CutPrefix(line, first)
	if !ok || !more {
		return ok && line == ""
	}
	for i := range len(line) + 1 {
		if matches(rest, line[i:]) {
			return true
		}
	}
	return false
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("../README.md"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the documents are not on this machine")
	}
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		sessions := sessionsOf(string(text))
		if len(sessions) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.Dirty() // what a reader is left with: the default bridge, forwarding
			dir := t.TempDir()
			if err := os.Symlink(nsinitBin, filepath.Join(dir, "nsinit")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, c := range netsetuptest.Decode[[]state](t, m.nsinit(t, "list", "--json").OK(t)) {
					m.nsinit(t, "delete", "--force", c.ID)
				}
			})
			for _, s := range sessions {
				if s.device != "" && !m.hasDevices(t, s.device) {
					t.Logf("%s:%d: not run: this kernel has no %s devices", page, s.line, s.device)
					continue
				}
				s.run(t, m, page, dir)
			}
		})
	}
}

// hasDevices says whether the kernel has a kind of network device: a request that names none to stand on gets another
// answer then.
func (m *machine) hasDevices(t testing.TB, kind string) bool {
	t.Helper()
	r := m.Run(t, "sh", "-c", "ip link add probe0 type "+kind+" && ip link del probe0")
	return !strings.Contains(r.Stderr, "Unknown device type")
}

// TestNetworkPagesRun wants every example of the networks' and policies' pages to be run.
func TestNetworkPagesRun(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"../docs/network-*.md", "../docs/policy-*.md"} {
		pages, _ := filepath.Glob(pattern)
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			blocks, run := strings.Count(string(text), "```console"), len(sessionsOf(string(text)))
			if blocks != run {
				t.Errorf("%s: %d examples, of which %d are run", page, blocks, run)
			}
		}
	}
}

func (s *session) run(t *testing.T, m *machine, page, dir string) {
	t.Helper()
	for _, c := range s.commands {
		out := filepath.Join(dir, "out") // a file: a detached container would keep a pipe open
		f, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		cmd := m.Command("/bin/bash", "-c", c.text)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "LC_ALL=C")
		cmd.Dir = dir
		cmd.Stdout, cmd.Stderr = f, f
		r := m.RunCmd(t, cmd)
		_ = f.Close()
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if want := c.missing(string(b)); want != "" {
			t.Errorf("%s:%d: %s\nlacks %q in\n%s", page, s.line, c.text, want, b)
		}
		if r.Code != 0 && !slices.ContainsFunc(c.want, func(l string) bool { return strings.HasPrefix(l, "nsinit: ") || strings.Contains(l, "No such file") }) {
			t.Errorf("%s:%d: %s\nexit code %d\n%s", page, s.line, c.text, r.Code, b)
		}
	}
}

// TestDefaultContainerMounts compares the page's table of mounts with a container's.
func TestDefaultContainerMounts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/default-container.md")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the documents are not on this machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "## Mounts\n")
	if !ok {
		t.Fatal("the page has no mounts")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	missing := map[string]netsetuptest.Mount{}
	for _, mount := range netsetuptest.ParseMounts(inDefault(t, newMachine(t), "cat /proc/self/mountinfo")) {
		if !strings.Contains(mount.Point, "/proc/") && (mount.Point == "/sys/fs/cgroup" || !strings.Contains(mount.Point, "/sys/")) {
			missing[mount.Point] = mount
		}
	}
	for line := range strings.Lines(strings.ReplaceAll(table, "`", "")) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "/") {
			continue
		}
		point, kind := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		mount, ok := missing[point]
		if !ok || kind != "" && mount.Type != kind {
			t.Errorf("%s: %+v, the page has %q", point, mount, kind)
			continue
		}
		for option := range strings.SplitSeq(strings.TrimSpace(cells[3]), ",") {
			if !mount.Has(option) {
				t.Errorf("%s: the page has %s; %s %s", point, option, mount.Options, mount.Super)
			}
		}
		delete(missing, point)
	}
	for point := range missing {
		t.Errorf("%s is mounted, and the page doesn't have it", point)
	}
}

// TestSessionsOf keeps the tests above from passing because they read nothing.
func TestSessionsOf(t *testing.T) {
	t.Parallel()
	got := sessionsOf("x\n```console # runs\n$ a\n1\n2\n$ b\n```\n```console\n$ c\n```\n")
	if len(got) != 1 || len(got[0].commands) != 2 || len(got[0].commands[0].want) != 2 {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		pattern, line string
		want          bool
	}{{"a", "a", true}, {"a", "ab", false}, {"a...", "ab", true}, {"a...c", "abc", true}, {"a...c", "abcd", false}, {"a...b...c", "a1b2c", true}} {
		if matches(c.pattern, c.line) != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.line, !c.want)
		}
	}
}
