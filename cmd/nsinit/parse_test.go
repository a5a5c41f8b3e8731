package main

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

func TestEnvFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, file string
		want       []string
		err        string
	}{
		{name: "empty"},
		{name: "plain", file: "A=1\nB=2\n", want: []string{"A=1", "B=2"}},
		{name: "no line end", file: "A=1", want: []string{"A=1"}},
		{name: "as it stands", file: `A="x" # y ` + "\n", want: []string{`A="x" # y `}},
		{name: "comments and blanks", file: "# A=1\n\n  # B=2\n \t\n  C=3\n", want: []string{"C=3"}},
		{name: "empty value", file: "A=\n", want: []string{"A="}},
		{name: "equals", file: "A=b=c\n", want: []string{"A=b=c"}},
		{name: "the caller's", file: "GIVEN\nMISSING\n", want: []string{"GIVEN=by the caller"}},
		{name: "crlf", file: "A=1\r\nB=2\r\n", want: []string{"A=1", "B=2"}},
		{name: "byte order mark", file: "\ufeffA=1\n", want: []string{"A=1"}},
		{name: "no name", file: "A=1\n=2\n", err: `line 2: "=2": no name before =`},
		{name: "blank in name", file: "export A=1\n", err: `line 1: "export A=1": blank in the name`},
		{name: "no utf-8", file: "A=\xff\n", err: "line 1: not UTF-8"},
		{name: "nul", file: "A=a\x00b\n", err: `line 1: "A=a\x00b": holds a NUL byte`},
		{name: "long line", file: "A=1\nB=" + strings.Repeat("x", maxEnvLine), err: "line 2: longer than 128 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseEnvFile([]byte(tt.file), callerEnv)
			checkResult(t, got, err, tt.want, tt.err)
		})
	}
}

func TestMergeEnv(t *testing.T) {
	t.Parallel()
	got := container.MergeEnv([]string{"PATH=/bin", "A=1"}, "B=2", "A=3", "B=4")
	if diff := cmp.Diff([]string{"PATH=/bin", "A=3", "B=4"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want int64
		err  string
	}{
		{in: "1", want: 1},
		{in: "64k", want: 64 << 10},
		{in: "64K", want: 64 << 10},
		{in: "1mb", want: 1 << 20},
		{in: "1MiB", want: 1 << 20},
		{in: "2g", want: 2 << 30},
		{in: "8388607t", want: 8388607 << 40},
		{in: "8388608t", err: "too large"},
		{in: "99999999999999999999", err: "too large"},
		{in: "", err: "want a number with b, k, m, g or t"},
		{in: "m", err: "want a number with b, k, m, g or t"},
		{in: "1.5g", err: "want a number with b, k, m, g or t"},
		{in: "+1", err: "want a number with b, k, m, g or t"},
		{in: "1mm", err: "unknown unit; one of b, k, m, g, t"},
		{in: "0k", err: "zero"},
	} {
		got, err := parseSize(tt.in)
		t.Run(tt.in, func(t *testing.T) { checkResult(t, got, err, tt.want, tt.err) })
	}
}

func TestVolumePaths(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"/a:/b":            {"/a", "/b"},
		`/a\:b:/c\:d`:      {"/a:b", "/c:d"},
		`/a\b:/c`:          {`/a\b`, "/c"},
		"/a b:/c\td":       {"/a b", "/c\td"},
		"/a//b/:/c/../d//": {"/a/b", "/d"},
	} {
		m, err := parseVolume(in)
		if err != nil || m.Source != want[0] || m.Destination != want[1] {
			t.Errorf("%s: %s, %s, %v; want %v", in, m.Source, m.Destination, err, want)
		}
	}
}

func TestSysctlKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"net.ipv4.ip_forward":                "net.ipv4.ip_forward",
		"net/ipv4/ip_forward":                "net.ipv4.ip_forward",
		"net.ipv4.conf.eth0/100.forwarding":  "net.ipv4.conf.eth0/100.forwarding",
		"net/ipv4/conf/eth0.100/forwarding":  "net.ipv4.conf.eth0/100.forwarding",
		"kernel.msgmax":                      "kernel.msgmax",
		"kernel.sem":                         "kernel.sem",
		"fs.mqueue.msg_max":                  "fs.mqueue.msg_max",
		"net.netfilter.nf_conntrack_tcp_max": "net.netfilter.nf_conntrack_tcp_max",
	} {
		if got, err := sysctlKey(in); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "net", "net.", ".net.x", "net/..", "net.x/../../kernel", "kernel.core_pattern", "kernel.panic", "fs.file-max", "vm.swappiness", "net.ipv4.x y"} {
		if got, err := sysctlKey(in); err == nil {
			t.Errorf("%s: taken as %s", in, got)
		}
	}
}

func TestSignal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]syscall.Signal{
		"TERM": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "KILL": 9, "64": 64,
		"RTMIN": 34, "RTMIN+3": 37, "SIGRTMAX-1": 63, "rtmax": 64,
	} {
		if got, err := parseSignal(in); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-9", "SIG", "NOSUCH", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+", "RTMIN+x", "9 "} {
		if got, err := parseSignal(in); err == nil {
			t.Errorf("%q: taken as %d", in, got)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"network", "no-pivot", "env", "env-file", "tty"}
	for in, want := range map[string]string{
		"netwrok": "network", "nework": "network", "envfile": "env-file", "ev": "env", "tyt": "tty", "zzzzzz": "",
		strings.Repeat("n", 1000): "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("%.20s: %q, want %q", in, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a b":                         `"a b"`,
		"a\n\x1b[31m\x00":             `"a\n\x1b[31m\x00"`,
		"\xff":                        `"\xff"`,
		strings.Repeat("é", 40):       `"` + strings.Repeat("é", 32) + `"...`,
		"x" + strings.Repeat("é", 40): `"x` + strings.Repeat("é", 31) + `"...`,
	} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := oneLine("a\nb\x1b[0m\xff\n"); got != `a; b\x1b[0m`+"\ufffd" {
		t.Errorf("one line: %q", got)
	}
}

func checkResult[T any](t *testing.T, got T, err error, want T, wantErr string) {
	t.Helper()
	switch {
	case wantErr == "" && err != nil:
		t.Errorf("error: %v", err)
	case wantErr == "":
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	case err == nil:
		t.Errorf("taken as %v", got)
	case err.Error() != wantErr:
		t.Errorf("error %q, want %q", err, wantErr)
	}
}

func FuzzEnvFile(f *testing.F) {
	f.Add([]byte("A=1\nGIVEN\n# c\n\ufeffB=2\r\n"))
	f.Add([]byte("=x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseEnvFile(data, callerEnv)
		if err != nil {
			checkError(t, err)
			return
		}
		for _, e := range entries {
			name, _, ok := strings.Cut(e, "=")
			if !ok || name == "" || strings.ContainsAny(name, " \t\n") || strings.ContainsAny(e, "\n\x00") {
				t.Errorf("entry %q", e)
			}
		}
		if again := container.MergeEnv(entries, entries...); len(again) > len(entries) {
			t.Errorf("merged: %q", again)
		}
	})
}

func FuzzVolume(f *testing.F) {
	f.Add(`/a\:b:/c:ro,rbind`)
	f.Add("./x:/y")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseVolume(s)
		if err != nil {
			checkError(t, err)
			return
		}
		if m.Source[0] != '/' || m.Destination[0] != '/' || m.Destination == "/" || strings.Contains(m.Destination, "/../") {
			t.Errorf("%+v", m)
		}
		checkOptions(t, m.Options)
	})
}

func FuzzTmpfs(f *testing.F) {
	f.Add("/x:size=50%,mode=1777,exec")
	f.Add("/x:size=64m,nr_inodes=10,uid=0")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseTmpfs(s)
		if err != nil {
			checkError(t, err)
			return
		}
		if m.Destination[0] != '/' || m.Destination == "/" {
			t.Errorf("%+v", m)
		}
		checkOptions(t, m.Options)
	})
}

// checkOptions: nothing but known words and plain values may reach a mount.
func checkOptions(t *testing.T, options []string) {
	t.Helper()
	kinds := map[string]string{}
	for _, o := range options {
		if strings.ContainsAny(o, ",\n\x00 /\\") {
			t.Errorf("option %q", o)
		}
		if k := optionKind(o); kinds[k] != "" && kinds[k] != o {
			t.Errorf("options %q and %q", kinds[k], o)
		}
		kinds[optionKind(o)] = o
	}
	if kinds["dev"] != "nodev" {
		t.Errorf("devices: %q", options)
	}
}

func FuzzSysctl(f *testing.F) {
	f.Add("net/ipv4/conf/eth0.100/forwarding=1")
	f.Add("kernel.shmmax=1+kernel.core_pattern=|/x")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseSysctl(s)
		if err != nil {
			checkError(t, err)
			return
		}
		path := strings.NewReplacer(".", "/", "/", ".").Replace(got.key)
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || part == "." || part == ".." {
				t.Errorf("%q: path %q", s, path)
			}
		}
		if strings.ContainsAny(got.value, "\n\x00=+|") || checkNamespaced(got.key) != nil {
			t.Errorf("%q: %+v", s, got)
		}
	})
}

func FuzzAddHost(f *testing.F) {
	f.Add("h:[fd00::1]")
	f.Add("h=host-gateway")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseAddHost(s)
		if err != nil {
			checkError(t, err)
			return
		}
		if _, err := netip.ParseAddr(e.IP); err != nil && e.IP != hostGateway {
			t.Errorf("%q: %+v", s, e)
		}
		if strings.ContainsAny(e.Name+e.IP, " \t\n\r#\x00") || e.Name == "" {
			t.Errorf("%q: %+v", s, e)
		}
	})
}

func FuzzSize(f *testing.F) {
	f.Add("64m")
	f.Add("8388608t")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			checkError(t, err)
		} else if n <= 0 {
			t.Errorf("%q: %d", s, n)
		}
	})
}

func FuzzIDMap(f *testing.F) {
	f.Add("0:1000:1")
	f.Add("4294967294:0:1")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseIDMap(s)
		if err != nil {
			checkError(t, err)
			return
		}
		for _, start := range []uint32{m.ContainerID, m.HostID} {
			if m.Size == 0 || uint64(start)+uint64(m.Size)-1 > maxID {
				t.Errorf("%q: %+v", s, m)
			}
		}
		if _, _, ok := overlap(append([]specs.LinuxIDMapping{m}, m), func(m specs.LinuxIDMapping) uint64 { return uint64(m.HostID) }); !ok {
			t.Errorf("%q: doesn't overlap itself", s)
		}
	})
}

// checkError: whatever was given, the line that is printed is one line and short.
func checkError(t *testing.T, err error) {
	t.Helper()
	line := oneLine(err.Error())
	if strings.ContainsAny(line, "\n\r\x1b\x00") || len(line) > 1000 {
		t.Errorf("error %q", line)
	}
}
