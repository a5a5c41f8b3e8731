package netsetup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func writeFile(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodList = `{
  "cniVersion": "1.1.0",
  "name": "lan",
  "plugins": [
    {"type": "bridge", "bridge": "br0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}, "\u00e4\ud83d\ude00": null}
  ]
}
`

func TestParseNetwork(t *testing.T) {
	t.Parallel()
	list := func(plugins string) string {
		return `{"cniVersion":"1.0.0","name":"lan","plugins":` + plugins + `}`
	}
	plugin := func(keys string) string { return list(`[{"type":"bridge"` + keys + `}]`) }
	tests := []struct{ name, content, fault string }{
		{"good", goodList, ""},
		{"single plugin", `{"cniVersion":"1.0.0","name":"lan","type":"bridge"}`, ""},
		{"versions", `{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0"],"name":"lan","plugins":[{"type":"bridge"}]}`, ""},
		{"unknown key of a list", `{"cniVersion":"1.0.0","name":"lan","x":1,"plugins":[{"type":"bridge"}]}`, ""},
		{"null for a foreign plugin", list(`[{"type":"mine","a":null}]`), ""},
		{"empty ipam", plugin(`,"ipam":{}`), ""},

		{"empty", " \n", "empty"},
		{"null", "null", `"null": null, not an object`},
		{"a list", "[]", `"[]": a list, not an object`},
		{"byte order mark", "\xef\xbb\xbf{}", "byte order mark"},
		{"UTF-16 little", "\xff\xfe{\x00}\x00", "UTF-16"},
		{"UTF-16 big", "\xfe\xff\x00{\x00}", "UTF-16"},
		{"no UTF-8", `{"name":"l` + "\xff" + `n"}`, "1:11: name: byte 10 of the file is no UTF-8"},
		{"overlong", `{"name":"` + "\xc0\xaf" + `"}`, "no UTF-8"},
		{"half a surrogate pair", `{"name":"\ud83d"}`, "half a surrogate pair"},
		{"two first halves", `{"name":"\ud83d\ud83d"}`, "half a surrogate pair"},
		{"a second half", `{"name":"\ude00"}`, "half a surrogate pair"},
		{"NUL", `{"name":"la\u0000n"}`, `1:12: name: \u0000 in a string`},
		{"control character", "{\"name\":\"a\nb\"}", "control character 0x0a"},
		{"trailing text", goodList + "x", "9:1: text behind the end"},
		{"two values", "{}{}", "1:3: text behind the end"},
		{"trailing comma", `{"name":"lan",}`, "1:15: a key in quotes is missing"},
		{"trailing comma in a list", `{"plugins":[1,]}`, "plugins[1]: not a value"},
		{"comment", "{//x\n}", "a key in quotes is missing"},
		{"no colon", `{"name" "lan"}`, "colon"},
		{"no comma", `{"name":"lan" "a":1}`, "comma"},
		{"cut off", `{"name":"la`, "has no end"},
		{"bare word", `{"name":lan}`, "not a value"},
		{"leading zero", `{"a":012}`, "not a value"},
		{"no digits behind the point", `{"a":1.}`, "not a value"},
		{"plus", `{"a":+1}`, "not a value"},
		{"bad escape", `{"a":"\x41"}`, "unknown escape"},
		{"short \\u", `{"a":"\u12"}`, "four hexadecimal digits"},
		{"deep", strings.Repeat(`[`, 10001), "nested more than 1000"},
		{"deep objects", strings.Repeat(`{"a":`, 10001), "nested more than 1000"},
		{"many values", `{"a":[` + strings.Repeat("0,", 1_000_000) + `0]}`, "more than 100000 values"},

		{"key twice", "{\"name\":\"lan\",\n\"name\":\"wan\"}", "2:1: name: given twice, first on line 1"},
		{"key twice, escaped", `{"name":"lan","n\u0061me":"wan"}`, "name: given twice"},
		{"key twice in a plugin", plugin(`,"mtu":1,"mtu":2`), "plugins[0].mtu: given twice"},
		{"other case", `{"cniVersion":"1.0.0","Name":"lan","plugins":[{"type":"bridge"}]}`, `"Name": unknown key; write "name"`},
		{"long s", `{"cniVersion":"1.0.0","name":"lan","pluginſ":[{"type":"bridge"}]}`, `unknown key; write "plugins"`},
		{"other case in a plugin", plugin(`,"IPAM":{}`), `plugins[0]: "IPAM": unknown key; write "ipam"`},
		{"other case in ipam", plugin(`,"ipam":{"type":"host-local","datadir":"/x"}`), `plugins[0].ipam: "datadir": unknown key; write "dataDir"`},
		{"null for ours", plugin(`,"mtu":null`), `plugins[0].mtu: "null": no value`},

		{"no name", `{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}`, "name: missing"},
		{"name a number", `{"cniVersion":"1.0.0","name":1,"plugins":[{"type":"bridge"}]}`, `name: "1": a number, not a string`},
		{"name with a slash", `{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"bridge"}]}`, "not allowed here"},
		{"unknown version", `{"cniVersion":"1.2.0","name":"lan","plugins":[{"type":"bridge"}]}`, `cniVersion: "1.2.0": unknown version; one of 0.1.0, 0.2.0`},
		{"no semantic version", `{"cniVersion":"one","name":"lan","plugins":[{"type":"bridge"}]}`, "unknown version"},
		{"versions no list", `{"cniVersions":"1.0.0","name":"lan","plugins":[{"type":"bridge"}]}`, "cniVersions: \"\\\"1.0.0\\\"\": a string, not a list"},
		{"no plugins", `{"cniVersion":"1.0.0","name":"lan"}`, "plugins: missing"},
		{"plugin", `{"cniVersion":"1.0.0","name":"lan","plugin":[]}`, "plugins: missing; a list of at least one plugin; did you mean plugin?"},
		{"plugins null", list("null"), `plugins: "null": null, not a list`},
		{"plugins empty", list("[]"), "plugins: \"[]\": empty"},
		{"plugin a string", list(`["bridge"]`), `plugins[0]: "\"bridge\"": a string, not an object`},
		{"plugin without type", list(`[{"Type":"bridge"}]`), `plugins[0]: "Type": unknown key; write "type"`},
		{"type empty", list(`[{"type":""}]`), "plugins[0].type: \"\": empty"},
		{"type a path", list(`[{"type":"../../sbin/reboot"}]`), `plugins[0].type: "../../sbin/reboot": '/' is not allowed`},
		{"ipam type a path", plugin(`,"ipam":{"type":"../x"}`), `plugins[0].ipam.type: "../x"`},
		{"ipam a list", plugin(`,"ipam":[]`), `plugins[0].ipam: "[]": a list, not an object`},
		{"ipam without type", plugin(`,"ipam":{"subnet":"10.1.0.0/24"}`), `plugins[0].ipam.type: missing`},
		{"disableCheck", `{"cniVersion":"1.0.0","name":"lan","disableCheck":"yes","plugins":[{"type":"bridge"}]}`, `disableCheck: "\"yes\"": neither true nor false`},
		{"list and plugin", `{"cniVersion":"1.0.0","name":"lan","type":"bridge","plugins":[{"type":"bridge"}]}`, "has both plugins and type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, err := parseNetwork([]byte(tt.content), "FILE.conf")
			if tt.fault == "" {
				if err != nil || n.Name != "lan" || n.Plugins[0].Type != "bridge" && n.Plugins[0].Type != "mine" || len(n.Warnings) > 0 {
					t.Fatalf("%+v, %v", n, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Fatalf("error %v\nwant  %s", err, tt.fault)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "FILE.conf: ") || len(line) > 400 {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

func TestParseNetworkDetails(t *testing.T) {
	t.Parallel()
	n, err := parseNetwork([]byte(goodList), "x.conflist")
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Plugins) != 2 || n.CNIVersion != "1.1.0" || !strings.HasPrefix(string(n.Plugins[0].Raw), `{"type": "bridge"`) ||
		!strings.HasSuffix(string(n.Plugins[1].Raw), `null}`) {
		t.Errorf("%+v", n)
	}
	n, err = parseNetwork([]byte(`{"name":"lan","type":"bridge"}`), "x.conf")
	if err != nil || n.CNIVersion != "0.1.0" || len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "cniVersion: missing") {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err = parseNetwork([]byte(`{"cniVersion":"1.0.0","name":"lan","type":"bridge"}`), "x.conflist"); err == nil ||
		!strings.Contains(err.Error(), "this is a single plugin") {
		t.Errorf("a single plugin as a list: %v", err)
	}
	_, err = parseNetwork([]byte(`{"cniVersion":"9","plugins":[{"type":"/"},{"ipam":[]}]}`), "x")
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("not all faults at once: %v", err)
	}
}

func TestLoadNetwork(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	single := func(name string) string { return `{"cniVersion":"1.0.0","name":"` + name + `","type":"bridge"}` }
	writeFile(t, one, "10-broken.conflist", "{")
	list := writeFile(t, one, "50-a.conflist", goodList)
	writeFile(t, one, "00-first.conf", single("first"))
	writeFile(t, one, "note.txt", single("note"))
	writeFile(t, two, "x.json", single("second"))
	again := writeFile(t, two, "y.conf", single("lan"))
	faulty := writeFile(t, two, "z.conflist", `{"cniVersion":"7","name":"faulty","plugins":[{"type":"bridge"}]}`)
	dirs := []string{"/nonexistent", one, two}

	n, err := LoadNetwork("lan", dirs)
	if err != nil || n.Source != list || len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], again) {
		t.Errorf("%+v, %v", n, err)
	}
	for _, name := range []string{"first", "second"} {
		if n, err := LoadNetwork(name, dirs); err != nil || n.Name != name || len(n.Plugins) != 1 {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	_, err = LoadNetwork("secnd", dirs)
	for _, part := range []string{`network "secnd": not found in /nonexistent, ` + one, "there: faulty, first, lan, second; did you mean second?", "10-broken.conflist: 1:2:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want %q", err, part)
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is no fs.ErrNotExist", err)
	}
	if _, err = LoadNetwork("note", dirs); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a .txt file: %v", err)
	}
	if _, err = LoadNetwork("faulty", dirs); err == nil || !strings.HasPrefix(err.Error(), faulty+`: cniVersion: "7"`) {
		t.Errorf("error %v", err)
	}
	if _, err = LoadNetwork("a b", dirs); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err = LoadNetwork("x", []string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no network there (*.conflist") {
		t.Errorf("error %v", err)
	}
	if n, err = LoadNetwork(list, nil); err != nil || n.Name != "lan" {
		t.Errorf("by path: %+v, %v", n, err)
	}
}

func TestLoadFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := writeFile(t, dir, "a.conflist", goodList)
	writeFile(t, dir, "lan/20.conf", `{"type":"tuning"}`)
	writeFile(t, dir, "lan/10.conf", `{"type":"firewall"}`)
	writeFile(t, dir, "lan/10.txt", `{`)
	n, err := LoadNetwork(path, nil)
	if err != nil || len(n.Plugins) != 4 || n.Plugins[2].Type != "firewall" || n.Plugins[3].Type != "tuning" {
		t.Errorf("%+v, %v", n, err)
	}
	writeFile(t, dir, "lan/30.conf", `{"type":"a/b"}`)
	if _, err = LoadNetwork(path, nil); err == nil || !strings.Contains(err.Error(), `30.conf: type: "a/b"`) {
		t.Errorf("error %v", err)
	}
	writeFile(t, dir, "a.conflist", strings.Replace(goodList, `"name"`, `"loadOnlyInlinedPlugins": true, "name"`, 1))
	if n, err = LoadNetwork(path, nil); err != nil || len(n.Plugins) != 2 {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestNetworkSwitches has what a list says of its use.
func TestNetworkSwitches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keys          string
		version       string
		noCheck, noGC bool
		fault         string
	}{
		{`"cniVersion": "1.0.0"`, "1.0.0", false, false, ""},
		{`"cniVersion": "1.1.0", "disableCheck": true, "disableGC": "TRUE"`, "1.1.0", true, true, ""},
		{`"cniVersion": "1.1.0", "disableCheck": false, "disableGC": "false"`, "1.1.0", false, false, ""},
		{`"cniVersions": ["0.3.1", "0.4.0"]`, "0.4.0", false, false, ""},
		{`"cniVersion": "1.0.0", "cniVersions": ["0.3.1", "1.2.0", "10.0.0"]`, "1.0.0", false, false, ""},
		{`"cniVersions": ["1.2.0"]`, "", false, false, `cniVersions: "[\"1.2.0\"]": none that nsinit knows`},
		{`"cniVersions": ["0.5.0", "v1.0.0", "1.0"]`, "", false, false, `cniVersions[2]: "1.0": unknown version`},
		{`"cniVersion": "1.0.0", "disableGC": 1`, "1.0.0", false, false, `disableGC: "1": neither true nor false`},
	} {
		n, err := parseNetwork([]byte(`{"name": "lan", "plugins": [{"type": "bridge"}], `+test.keys+`}`), "x.conflist")
		if test.fault != "" {
			wantError(t, err, test.fault)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.keys, err)
			continue
		}
		got := [3]any{n.CNIVersion, n.DisableCheck, n.DisableGC}
		wantEqual(t, test.keys, got, [3]any{test.version, test.noCheck, test.noGC})
	}
}

// TestLoadOddFiles: nothing that lies there stops or bloats a start.
func TestLoadOddFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "a.conf")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := writeFile(t, dir, "big.conf", "")
	if err := os.Truncate(big, maxNetworkFile+1); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for path, fault := range map[string]string{
		fifo: "a FIFO", dir: "a directory", big: "more than 16 MiB", dir + "/none": "no such file",
		"/dev/null": "a device",
	} {
		if _, err := LoadNetwork(path, nil); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", path, err, fault)
		}
	}
	if _, err := LoadNetwork(dir+"/none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is no fs.ErrNotExist", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzLoadNetwork(f *testing.F) {
	f.Add([]byte(goodList))
	for _, s := range []string{"{}", "null", `{"name":"a","type":"b","ipam":{"type":"c"}}`, `{"a":"\ud83d\ude00"}`, `[[[`, `{"a":1e5}`, "\xef\xbb\xbf{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		n, err := parseNetwork(src, "FILE")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\x1b\r") || !utf8.ValidString(err.Error()) {
				t.Errorf("%q", err)
			}
			return
		}
		if CheckNetworkName(n.Name) != nil || len(n.Plugins) == 0 {
			t.Errorf("%+v", n)
		}
		for _, p := range n.Plugins {
			if checkPluginType(p.Type) != nil {
				t.Errorf("type %q", p.Type)
			}
			if _, err := readJSON(p.Raw); err != nil {
				t.Errorf("a plugin can't be read again: %v", err)
			}
		}
	})
}

func BenchmarkLoadNetwork(b *testing.B) {
	path := writeFile(b, b.TempDir(), "a.conflist", goodList)
	for b.Loop() {
		if _, err := LoadNetwork(path, nil); err != nil {
			b.Fatal(err)
		}
	}
}
