package creds

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

func TestParseUlimit(t *testing.T) {
	t.Parallel()
	const none = unix.RLIM_INFINITY
	for s, want := range map[string]specs.POSIXRlimit{
		"nofile=1024":                {Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024},
		"nofile=1024:2048":           {Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 2048},
		"nproc=0":                    {Type: "RLIMIT_NPROC"},
		"core=-1":                    {Type: "RLIMIT_CORE", Soft: none, Hard: none},
		"core=0:-1":                  {Type: "RLIMIT_CORE", Hard: none},
		"memlock=unlimited":          {Type: "RLIMIT_MEMLOCK", Soft: none, Hard: none},
		"stack=1:unlimited":          {Type: "RLIMIT_STACK", Soft: 1, Hard: none},
		"fsize=18446744073709551615": {Type: "RLIMIT_FSIZE", Soft: none, Hard: none},
	} {
		if got, err := ParseUlimit(s); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, name := range ulimits() {
		got, err := ParseUlimit(name + "=1")
		if _, ok := rlimitNumber(got.Type); err != nil || !ok {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for s, want := range map[string]string{
		"":                            "has no value",
		"nofile":                      "has no value",
		"=1":                          "is unknown",
		"nofiles=1":                   `"nofiles" is unknown; the nearest is nofile`,
		"NOFILE=1":                    "the nearest is nofile",
		"RLIMIT_NOFILE=1":             "is unknown",
		"nofile=":                     "a limit is a decimal number",
		"nofile=1:":                   "a limit is a decimal number",
		"nofile=:1":                   "a limit is a decimal number",
		"nofile=1:2:3":                "a limit is a decimal number",
		"nofile=-2":                   "a limit is a decimal number",
		"nofile=+1":                   "a limit is a decimal number",
		"nofile= 1":                   "a limit is a decimal number",
		"nofile=0x10":                 "a limit is a decimal number",
		"nofile=1e3":                  "a limit is a decimal number",
		"nofile=1_000":                "a limit is a decimal number",
		"nofile=18446744073709551616": "a limit is a decimal number",
		"nofile=2:1":                  "soft limit 2 is above hard limit 1",
		"nofile=-1:1":                 "soft limit unlimited is above hard limit 1",
	} {
		if got, err := ParseUlimit(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want %q", s, got, err, want)
		}
	}
}

func TestCheckRlimits(t *testing.T) {
	t.Parallel()
	most, ok := nrOpen(specs.POSIXRlimit{Type: "RLIMIT_NOFILE"})
	if !ok {
		t.Fatal("no fs.nr_open")
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		limits []specs.POSIXRlimit
		want   string
	}{
		"none":             {nil, ""},
		"as it is":         {[]specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: core.Max}}, ""},
		"unknown":          {[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILES"}}, "the nearest is RLIMIT_NOFILE"},
		"ulimit's name":    {[]specs.POSIXRlimit{{Type: "nofile"}}, "the nearest is RLIMIT_NOFILE"},
		"soft above hard":  {[]specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}, "soft limit 2 is above hard limit 1"},
		"twice":            {[]specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CPU"}, {Type: "RLIMIT_CORE"}}, "RLIMIT_CORE: given twice, as 0:0 and 0:0"},
		"above fs.nr_open": {[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: most + 1}}, fmt.Sprintf("above the kernel's fs.nr_open of %d", most)},
		"unlimited files":  {[]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: unix.RLIM_INFINITY}}, "hard limit unlimited is above the kernel's fs.nr_open"},
	} {
		err := CheckRlimits(c.limits)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// limits are soft and hard limit of a line of /proc/self/limits.
func (p *plan) limits(t *testing.T, cmd *exec.Cmd, name string) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			f := strings.Fields(rest)
			return f[0] + ":" + f[1]
		}
	}
	t.Fatalf("no %s in %s", name, out)
	return ""
}

func TestSetRlimits(t *testing.T) {
	t.Parallel()
	user := &User{UID: 1000, GID: 1000}
	if os.Geteuid() != 0 {
		user = nil
	}
	for ulimit, line := range map[string]string{
		"nofile=64:128": "Max open files", "nofile=77": "Max open files", "core=0": "Max core file size", "cpu=3:60": "Max cpu time",
		"cpu=100": "Max cpu time", "stack=1048576": "Max stack size", "nproc=500:600": "Max processes", "fsize=1000": "Max file size",
		"sigpending=10": "Max pending signals", "memlock=4096": "Max locked memory", "msgqueue=0": "Max msgqueue size",
		"rss=1": "Max resident set", "locks=3": "Max file locks", "rttime=5": "Max realtime timeout",
		// Smaller than what the Go runtime has mapped already: it must get to the exec all the same, with what it has.
		"as=67108864": "Max address space", "data=4194304": "Max data size",
	} {
		t.Run(ulimit, func(t *testing.T) {
			t.Parallel()
			limit, err := ParseUlimit(ulimit)
			if err != nil {
				t.Fatal(err)
			}
			p := &plan{Limits: []specs.POSIXRlimit{limit}, User: user, Exec: []string{"/bin/cat", "/proc/self/limits"}}
			want := fmt.Sprintf("%s:%s", limitText(limit.Soft), limitText(limit.Hard))
			if got := p.limits(t, p.command(t), line); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// Go raises RLIMIT_NOFILE for itself; the program gets what our caller had.
func TestCallersFileLimitComesBack(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*plan{
		"nothing set":       {},
		"another limit set": {Limits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}}},
		"on another thread": {OffMain: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.Exec = []string{"/bin/cat", "/proc/self/limits"}
			inner := p.command(t)
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 333; ulimit -Hn 4444; exec "$0"`, exe)
			cmd.Env = inner.Env
			if got := p.limits(t, cmd, "Max open files"); got != "333:4444" {
				t.Errorf("got %s, want 333:4444", got)
			}
		})
	}
}

func TestRaisingAHardLimit(t *testing.T) {
	t.Parallel()
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MSGQUEUE, &now); err != nil {
		t.Fatal(err)
	}
	if now.Max == unix.RLIM_INFINITY {
		t.Skip("needs a finite RLIMIT_MSGQUEUE, as is the kernel's default")
	}
	limit := specs.POSIXRlimit{Type: "RLIMIT_MSGQUEUE", Soft: now.Cur, Hard: now.Max + 1}
	err := onDyingThread(func() error {
		sets, err := threadSets()
		if err != nil {
			return err
		}
		sets.effective &^= 1 << capability.CAP_SYS_RESOURCE
		if err := apply(capability.CAPS, sets); err != nil {
			return err
		}
		if err := CheckRlimits([]specs.POSIXRlimit{limit}); err == nil {
			return errors.New("CheckRlimits takes it")
		}
		return SetRlimits([]specs.POSIXRlimit{limit})
	})
	want := fmt.Sprintf("rlimit: RLIMIT_MSGQUEUE: hard limit %d is above our own of %d, which takes CAP_SYS_RESOURCE", limit.Hard, now.Max)
	if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzUlimit(f *testing.F) {
	for _, s := range []string{"nofile=1024:2048", "core=-1", "=", "nofile=:", "cpu=unlimited:1", "\x00=1", "nofile=99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseUlimit(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		if _, ok := rlimitNumber(l.Type); !ok || l.Soft > l.Hard {
			t.Errorf("%q: got %+v", s, l)
		}
		name := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))
		again, err := ParseUlimit(fmt.Sprintf("%s=%d:%d", name, l.Soft, l.Hard))
		if err != nil || again != l {
			t.Errorf("%q: got %+v, then %+v, %v", s, l, again, err)
		}
	})
}
