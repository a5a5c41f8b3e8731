package netsetuptest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A Snapshot is all of a host's state that nsinit might change, as sorted lines "KIND NAME: VALUES": interfaces,
// addresses, routes and rules of all tables, the nftables ruleset, sysctls below net, mounts, cgroups,
// processes, names under /run/netns, state and lease files. Values that change by themselves are left out
// (numbers of interfaces, life times, timers, counters), and the random names of veths are replaced.
type Snapshot []string

// Snapshot takes one of the host.
func (h *Host) Snapshot(t testing.TB) Snapshot {
	t.Helper()
	s, err := h.snapshot(t)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return s
}

func (h *Host) snapshot(t testing.TB) (Snapshot, error) {
	t.Helper()
	lines, err := h.Node.networkLines(t)
	if err != nil {
		return nil, err
	}
	mounts, err := h.mountLines()
	if err != nil {
		return nil, err
	}
	procs, err := h.processLines()
	if err != nil {
		return nil, err
	}
	lines = slices.Concat(lines, mounts, procs, h.cgroupLines(), h.fileLines("/run/netns", "/run/nsinit", "/var/lib/nsinit", "/var/lib/cni"))
	slices.Sort(lines)
	return lines, nil
}

// Settled takes a snapshot once the kernel has removed what ended containers had: no process but the holder runs, and no
// veth leads to a namespace that is no peer's.
func (h *Host) Settled(t testing.TB) Snapshot {
	t.Helper()
	var s Snapshot
	Poll(t, func() error {
		s = h.Snapshot(t)
		if busy := slices.Concat(s.Grep("process "), s.Grep("link veth#"), s.emptyBridges()); len(busy) > 0 {
			return fmt.Errorf("not settled: %s", busy[0])
		}
		if d := Diff(s, h.Snapshot(t)); d != "" {
			return fmt.Errorf("not settled:\n%s", d)
		}
		return nil
	})
	return s
}

// emptyBridges are bridges without ports that still say that they are up: the kernel tells such events once a second.
func (s Snapshot) emptyBridges() Snapshot {
	return slices.DeleteFunc(s.Grep("linkinfo.info_kind=bridge"), func(line string) bool {
		name := strings.TrimPrefix(nameOf(line), "link ")
		return !strings.Contains(line, "operstate=UP") || len(s.Grep("master="+name+" ")) > 0
	})
}

// NetworkSnapshot takes one of a node's network alone.
func (n *Node) NetworkSnapshot(t testing.TB) Snapshot {
	t.Helper()
	lines, err := n.networkLines(t)
	if err != nil {
		t.Fatalf("%s: snapshot: %v", n.Name, err)
	}
	slices.Sort(lines)
	return lines
}

// Await polls until the host is as in want, and fails t with the difference if it does not become so.
func (h *Host) Await(t testing.TB, want Snapshot) {
	t.Helper()
	Poll(t, func() error {
		if d := Diff(want, h.Snapshot(t)); d != "" {
			return fmt.Errorf("the host is not as it was (- before, + now):\n%s", d)
		}
		return nil
	})
}

// Replace replaces what is random by design, such as a container's name.
func (s Snapshot) Replace(old, replacement string) Snapshot {
	out := make(Snapshot, len(s))
	for i, line := range s {
		out[i] = strings.ReplaceAll(line, old, replacement)
	}
	slices.Sort(out)
	return out
}

// Without leaves out the lines that start with any of prefixes.
func (s Snapshot) Without(prefixes ...string) Snapshot {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	})
}

// Grep returns the lines that contain text.
func (s Snapshot) Grep(text string) Snapshot {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool { return !strings.Contains(line, text) })
}

// queries are what ip is asked, in as few runs as it can be done.
var queries = []struct {
	family, suffix string
	objects, keys  []string
}{
	{"-d", "", []string{"link", "addr"}, []string{"ifname", "ifname"}}, // -d: no family, which ip has no flag for
	{"-4", "4", []string{"route show table all", "rule"}, []string{"dst", "priority"}},
	{"-6", "6", []string{"route show table all", "rule"}, []string{"dst", "priority"}},
}

// batch runs ip once and returns an answer for each of objects.
func (n *Node) batch(t testing.TB, family string, objects []string) [][]map[string]any {
	t.Helper()
	cmd := n.Command("ip", family, "-d", "-j", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(objects, "\n") + "\n")
	answers := json.NewDecoder(strings.NewReader(n.RunCmd(t, cmd).OK(t).Stdout))
	all := make([][]map[string]any, len(objects))
	for i := range all {
		if err := answers.Decode(&all[i]); err != nil {
			t.Fatalf("%q: %s: not the JSON wanted: %v", cmd.Args, objects[i], err)
		}
	}
	return all
}

// networkLines asks ip and nft, the programs that a person would ask, and /proc.
func (n *Node) networkLines(t testing.TB) ([]string, error) {
	t.Helper()
	var lines []string
	renamed := map[string]string{}
	for _, q := range queries {
		for i, objects := range n.batch(t, q.family, q.objects) {
			kind := strings.Fields(q.objects[i])[0]
			if kind == "link" {
				renamed = n.randomNames(objects)
			}
			for _, o := range objects {
				if len(o) > 0 { // ip prints {} for a link that it has filtered out
					lines = append(lines, objectLines(kind+q.suffix, q.keys[i], o, renamed)...)
				}
			}
		}
	}
	nft, err := n.nftLines(t, renamed)
	if err != nil {
		return nil, err
	}
	var sysctls []string
	err = n.Do(func() error { sysctls = sysctlLines(renamed); return nil })
	return slices.Concat(lines, nft, sysctls), err
}

// randomNames maps veths whose other end is in some other namespace to numbered names, in the order in which they were
// made; those to peers of the host keep theirs.
func (n *Node) randomNames(links []map[string]any) map[string]string {
	renamed := map[string]string{}
	for _, l := range links {
		name, _ := l["ifname"].(string)
		info, _ := l["linkinfo"].(map[string]any)
		_, far := l["link_netnsid"]
		if n == n.host.Node && far && info["info_kind"] == "veth" && !n.host.isPeerLink(name) {
			renamed[name] = fmt.Sprintf("veth#%d", len(renamed))
		}
	}
	return renamed
}

func (h *Host) isPeerLink(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peers[strings.TrimPrefix(name, "to-")] != nil
}

// objectLines makes "KIND NAME: key=value ..." of one of ip's objects, and a line of its own for each address.
func objectLines(kind, key string, o map[string]any, renamed map[string]string) []string {
	name := rename(fmt.Sprint(o[key]), renamed)
	if kind == "addr" {
		var lines []string
		addrs, _ := o["addr_info"].([]any)
		for _, a := range addrs {
			if a, ok := a.(map[string]any); ok {
				lines = append(lines, fmt.Sprintf("addr %s %v/%v: %s", name, a["local"], a["prefixlen"], pairs(a, "", renamed)))
			}
		}
		return lines
	}
	if dev, ok := o["dev"].(string); ok {
		name += " dev " + rename(dev, renamed)
	}
	if table, ok := o["table"]; ok && strings.HasPrefix(kind, "route") {
		name += fmt.Sprint(" table ", table)
	}
	return []string{kind + " " + name + ": " + pairs(o, "", renamed)}
}

// volatile are keys whose values change by themselves, or are numbers that chance gives.
func volatile(key string) bool {
	switch key {
	case "ifindex", "link_index", "link_netnsid", "valid_life_time", "preferred_life_time", "expires", "stats", "stats64",
		"permaddr", "label", "used", "error", "cache":
		return true
	}
	return strings.HasSuffix(key, "_timer")
}

func pairs(o map[string]any, prefix string, renamed map[string]string) string {
	var out []string
	for k, v := range o {
		switch v := v.(type) {
		case map[string]any:
			if !volatile(k) {
				out = append(out, pairs(v, prefix+k+".", renamed))
			}
		default:
			if !volatile(k) {
				b, _ := json.Marshal(v)
				out = append(out, prefix+k+"="+rename(strings.Trim(string(b), `"`), renamed))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func rename(s string, renamed map[string]string) string {
	if r, ok := renamed[s]; ok {
		return r
	}
	return s
}

// nftLines is the ruleset without counters and handles, each line under its table and chain. A kernel or machine
// without nftables has none.
func (n *Node) nftLines(t testing.TB, renamed map[string]string) ([]string, error) {
	t.Helper()
	r := n.Run(t, "nft", "-s", "list", "ruleset")
	if r.Code != 0 {
		return nil, fmt.Errorf("nft: exit code %d: %s", r.Code, r.Stderr)
	}
	var lines, path []string
	for line := range strings.Lines(r.Stdout) {
		line = strings.Join(strings.Fields(line), " ")
		for old, name := range renamed {
			line = strings.ReplaceAll(line, `"`+old+`"`, `"`+name+`"`)
		}
		switch {
		case strings.HasSuffix(line, "{"):
			path = append(path, strings.TrimSpace(strings.TrimSuffix(line, "{")))
			lines = append(lines, "nft "+strings.Join(path, " ")+":")
		case strings.HasPrefix(line, "}") && len(path) > 0:
			path = path[:len(path)-1]
		case line != "":
			lines = append(lines, fmt.Sprintf("nft %s %s:", strings.Join(path, " "), line))
		}
	}
	return lines, nil
}

// sysctlLines reads what the network namespace of the calling thread has.
func sysctlLines(renamed map[string]string) []string {
	const root = "/proc/sys/net/"
	files := []string{root + "ipv4/ip_forward", root + "ipv4/ping_group_range", root + "ipv4/ip_unprivileged_port_start"}
	for _, family := range []string{"ipv4", "ipv6"} {
		found, _ := filepath.Glob(root + family + "/conf/*/*")
		files = append(files, found...)
	}
	var lines []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // stable_secret can't be read before it was set
		}
		parts := strings.Split(strings.TrimPrefix(f, "/proc/sys/"), "/")
		for i := range parts {
			parts[i] = rename(parts[i], renamed)
		}
		lines = append(lines, fmt.Sprintf("sysctl %s: %s", strings.Join(parts, "/"), strings.Join(strings.Fields(string(b)), " ")))
	}
	return lines
}

// fileLines are the files below dirs: mode, and content where it is short.
func (h *Host) fileLines(dirs ...string) []string {
	var lines []string
	root := h.Path("")
	for _, dir := range dirs {
		_ = filepath.WalkDir(h.Path(dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || path == h.Path(dir) {
				return nil //nolint:nilerr // a file that goes meanwhile, or was never there, is not there
			}
			lines = append(lines, fmt.Sprintf("file %s: %s", strings.TrimPrefix(path, root), describe(path, d)))
			return nil
		})
	}
	return lines
}

func describe(path string, d os.DirEntry) string {
	info, err := d.Info()
	if err != nil {
		return err.Error()
	}
	text := info.Mode().String()
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		target, _ := os.Readlink(path)
		text += " -> " + target
	case strings.HasPrefix(d.Name(), "last_reserved_ip"): // host-local's memory of where it was
	case info.Mode().IsRegular() && info.Size() <= 4096:
		b, _ := os.ReadFile(path)
		text += fmt.Sprintf(" %q", b)
	}
	return text
}
