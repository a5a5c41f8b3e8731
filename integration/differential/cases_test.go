package differential

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A testCase is one configuration with what the runtime asks. In a file of testdata it starts with "== NAME"; then come
// the configuration (an object: one plugin, an array: a list of them) and lines "WORD VALUE":
//
//	caps JSON      capability arguments
//	args A=B;C=D   CNI_ARGS
//	version V      cniVersion, else 1.0.0
//	host COMMAND   for the shell, on the host before anything else
//	after COMMAND  the same at the end
//	inside COMMAND the same, in the container's namespace
//	ifname NAME    else eth0
//	probe WORDS    packets after ADD, see probe_test.go
//	needs KINDS    device types, or features, which a kernel may lack
//	set JSON       further keys of the network list
//	plugin         not by `nsinit run --network`, which has no words for it
//	gone           the container's namespace is removed before DEL
//	down           the container's lo stays down
//
// $NAME is a macro of testdata/macros: lines "$NAME = TEXT".
type testCase struct {
	name                string
	plugins             []map[string]any
	caps                map[string]any
	set                 map[string]any
	args                [][2]string
	version, ifName     string
	host, inside, after []string
	probes, needs       []string
	plugin, gone, down  bool
	text                string // as it stands, in lower case: what it names isn't random
}

// loadCases reads all files of testdata.
func loadCases() ([]*testCase, error) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		return nil, err
	}
	macros := map[string]string{}
	for line := range strings.Lines(readFile("testdata/macros")) {
		if word, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			macros[word] = expand(value, macros)
		}
	}
	var all []*testCase
	seen := map[string]bool{}
	for _, file := range files {
		cases, err := parseCases(strings.TrimSuffix(filepath.Base(file), ".txt"), readFile(file), macros)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, c := range cases {
			if seen[c.name] {
				return nil, fmt.Errorf("%s: %q: there twice", file, c.name)
			}
			seen[c.name] = true
		}
		all = append(all, cases...)
	}
	if len(all) == 0 {
		return nil, os.ErrNotExist
	}
	return all, nil
}

func parseCases(file, text string, macros map[string]string) (all []*testCase, err error) {
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		word, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		switch {
		case line == "" || word == "#":
			continue
		case word == "==":
			all = append(all, &testCase{name: file + "/" + strings.ReplaceAll(value, " ", "_"), version: "1.0.0", ifName: "eth0"})
			continue
		case len(all) == 0:
			return nil, fmt.Errorf("line %d: before the first case: %q", number+1, line)
		}
		c := all[len(all)-1]
		line = expand(line, macros)
		c.text += strings.ToLower(line) + "\n"
		word, value, _ = strings.Cut(line, " ")
		if err := c.parse(line, word, strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
	}
	return all, nil
}

// expand replaces macros, the longest names first.
func expand(line string, macros map[string]string) string {
	var names []string
	for name := range macros {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		line = strings.ReplaceAll(line, name, macros[name])
	}
	return line
}

func (c *testCase) parse(line, word, value string) (err error) {
	switch word {
	case "caps":
		return json.Unmarshal([]byte(value), &c.caps)
	case "set":
		return json.Unmarshal([]byte(value), &c.set)
	case "args":
		for pair := range strings.SplitSeq(value, ";") {
			k, v, _ := strings.Cut(pair, "=")
			c.args = append(c.args, [2]string{k, v})
		}
	case "version":
		c.version = value
	case "ifname":
		c.ifName = value
	case "host":
		c.host = append(c.host, value)
	case "after":
		c.after = append(c.after, value)
	case "inside":
		c.inside = append(c.inside, value)
	case "probe":
		c.probes = append(c.probes, strings.Fields(value)...)
	case "needs":
		c.needs = strings.Fields(value)
	case "plugin":
		c.plugin = true
	case "gone":
		c.gone = true
	case "down":
		c.down = true
	default:
		switch line[0] {
		case '[':
			return json.Unmarshal([]byte(line), &c.plugins)
		case '{':
			c.plugins = make([]map[string]any, 1)
			return json.Unmarshal([]byte(line), &c.plugins[0])
		}
		return fmt.Errorf("%q: no such word", word)
	}
	return nil
}

// runs says that nsinit run can be asked the same.
func (c *testCase) runs() bool {
	return !c.plugin && !c.gone && !c.down && c.ifName == "eth0" && len(c.caps)+len(c.args)+len(c.inside)+len(c.after) == 0
}

// network is the name of every case's network, and container the id of its container.
const network, containerID = "net", "c1"

// conflist is the network as a file has it.
func (c *testCase) conflist() []byte {
	list := map[string]any{"cniVersion": c.version, "name": network, "plugins": c.plugins}
	maps.Copy(list, c.set)
	b, _ := json.Marshal(list)
	return b
}
