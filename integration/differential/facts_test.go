package differential

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A fact is one value: of an object, "host link cni0", an attribute, "mtu".
type fact struct{ object, attr string }

// facts are all that is known of a moment.
type facts map[fact]string

func (f facts) put(object, attr, value string) { f[fact{object, attr}] = value }

// free returns object, or object with a number if there are several alike.
func (f facts) free(object string) string {
	name := object
	for i := 2; ; i++ {
		if _, ok := f[fact{name, ""}]; !ok {
			f.put(name, "", "there")
			return name
		}
		name = fmt.Sprintf("%s #%d", object, i)
	}
}

// flatten puts each value of a JSON object under its path.
func (f facts) flatten(object, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if !volatile(k) {
				f.flatten(object, strings.TrimPrefix(path+"."+k, "."), e)
			}
		}
	case []any:
		if words, ok := asWords(v); ok {
			f.put(object, path, strings.Join(words, " "))
			return
		}
		for i, e := range v {
			f.flatten(object, fmt.Sprintf("%s[%d]", path, i), e)
		}
	default:
		b, _ := json.Marshal(v)
		value := strings.Trim(string(b), `"`)
		if value == "LOWERLAYERDOWN" {
			value = "DOWN" // of a veth: when its number is not its other end's, of another namespace
		}
		f.put(object, path, value)
	}
}

// asWords is a list of words, such as flags, in order.
func asWords(list []any) ([]string, bool) {
	words := make([]string, len(list))
	for i, e := range list {
		var ok bool
		if words[i], ok = e.(string); !ok {
			return nil, false
		}
	}
	return words, true
}

// volatile are keys whose values change by themselves, or that chance gives.
func volatile(key string) bool {
	switch key {
	case "ifindex", "link_index", "link_netnsid", "stats", "stats64", "used", "cache", "confirmed", "updated", "refcnt", "probes",
		"no", "designated_port", "port_id", "handle", "gc_timer", "hello_timer", "tcn_timer", "topology_change_timer", "hold_timer",
		"message_age_timer", "forward_delay_timer", "bytes", "packets", "drops", "overlimits", "requeues", "backlog", "qlen", "expires":
		return true
	}
	return false
}

// collect asks ip, bridge and tc, the programs that a person would ask, and /proc.
func (p *place) collect(t *testing.T, f facts, names *names) {
	t.Helper()
	answers := p.links.ask(t, "link", "addr", "neigh show nud permanent")
	names.learn(p.word, answers[0])
	for _, l := range answers[0] {
		p.link(f, l)
	}
	defer f.forgetCarrier(p.word, idleBridges(answers[0]))
	for _, l := range answers[1] {
		p.addrs(f, l)
	}
	for _, n := range answers[2] {
		f.flatten(f.free(fmt.Sprintf("%s neigh %v %v", p.word, n["dev"], n["dst"])), "", n)
	}
	p.vlans(t, f, answers[0])
	for family, asker := range map[string]*asker{"4": p.v4, "6": p.v6} {
		answers := asker.ask(t, "link", "route show table all", "rule") // link: it would not notice new names
		for _, r := range answers[1] {
			f.flatten(f.free(routeName(p.word+" route"+family, r)), "", r)
		}
		for _, r := range answers[2] {
			f.flatten(f.free(fmt.Sprintf("%s rule%s %v from %v", p.word, family, r["priority"], r["src"])), "", r)
		}
	}
	p.queues(t, f)
	p.sysctls(f)
}

func (p *place) link(f facts, l map[string]any) {
	name, ok := l["ifname"]
	if !ok {
		return // ip prints {} for what it has filtered out
	}
	object := f.free(fmt.Sprint(p.word, " link ", name))
	_, far := l["link_netnsid"]
	f.put(object, "link elsewhere", fmt.Sprint(far))
	if words, ok := l["flags"].([]any); ok {
		slices.SortFunc(words, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	f.flatten(object, "", l)
}

// idleBridges are those without a port that has a carrier. Whether they say so is a matter of time: the kernel looks once
// a second.
func idleBridges(links []map[string]any) (names []string) {
	ports := map[any]bool{}
	for _, l := range links {
		if flags, _ := l["flags"].([]any); slices.Contains(flags, any("LOWER_UP")) {
			ports[l["master"]] = true
		}
	}
	for _, l := range links {
		info, _ := l["linkinfo"].(map[string]any)
		if info["info_kind"] == "bridge" && !ports[l["ifname"]] {
			names = append(names, fmt.Sprint(l["ifname"]))
		}
	}
	return names
}

func (f facts) forgetCarrier(word string, bridges []string) {
	for _, name := range bridges {
		link := word + " link " + name
		delete(f, fact{link, "operstate"})
		for k, v := range f {
			if k.attr == "flags" && (k.object == link || strings.HasPrefix(k.object, word+" route") && strings.Contains(k.object+" ", " dev "+name+" ")) {
				words := slices.DeleteFunc(strings.Fields(v), func(w string) bool { return w == "NO-CARRIER" || w == "LOWER_UP" || w == "linkdown" })
				f[k] = strings.Join(words, " ")
			}
		}
	}
}

func (p *place) addrs(f facts, l map[string]any) {
	addrs, _ := l["addr_info"].([]any)
	for _, a := range addrs {
		if a, ok := a.(map[string]any); ok && len(a) > 0 {
			f.flatten(f.free(fmt.Sprintf("%s addr %v %v/%v", p.word, l["ifname"], a["local"], a["prefixlen"])), "", a)
		}
	}
}

func routeName(kind string, r map[string]any) string {
	name := fmt.Sprintf("%s %v dev %v", kind, r["dst"], r["dev"])
	for _, key := range []string{"table", "type"} {
		if v, ok := r[key]; ok && v != "unicast" {
			name += fmt.Sprintf(" %s %v", key, v)
		}
	}
	return name
}

// vlans are the bridge's ports' VLANs and the fixed entries of its forwarding table.
func (p *place) vlans(t *testing.T, f facts, links []map[string]any) {
	t.Helper()
	if !slices.ContainsFunc(links, func(l map[string]any) bool {
		info, _ := l["linkinfo"].(map[string]any)
		return info["info_kind"] == "bridge"
	}) {
		return
	}
	if p.bridges == nil {
		p.bridges = newAsker(p.t, p.Node, "bridge")
	}
	answers := p.bridges.ask(t, "vlan", "fdb")
	for _, v := range answers[0] {
		f.flatten(f.free(fmt.Sprintf("%s vlan %v", p.word, v["ifname"])), "", v)
	}
	for _, e := range answers[1] {
		mac := fmt.Sprint(e["mac"])
		if strings.HasPrefix(mac, "33:33:") || strings.HasPrefix(mac, "01:00:5e:") || e["state"] != "permanent" {
			continue // groups that the kernel joined; what was learned
		}
		f.flatten(f.free(fmt.Sprintf("%s fdb %v %v vlan %v %v", p.word, e["ifname"], mac, e["vlan"], e["master"])), "", e)
	}
}

// queues are qdiscs that the kernel didn't make itself, with their classes and filters.
func (p *place) queues(t *testing.T, f facts) {
	t.Helper()
	devices := map[string]bool{}
	_ = p.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			qdiscs, _ := netlink.QdiscList(l)
			for _, q := range qdiscs {
				switch q.Type() {
				case "noqueue", "noop", "pfifo_fast", "mq", "fq_codel":
				default:
					devices[l.Attrs().Name] = true
				}
			}
		}
		return err
	})
	for dev := range devices {
		for kind, args := range map[string][]string{
			"qdisc": {"qdisc", "show", "dev", dev}, "class": {"class", "show", "dev", dev}, "filter": {"filter", "show", "dev", dev},
			"filter ingress": {"filter", "show", "dev", dev, "parent", "ffff:"},
		} {
			cmd := p.Command(append([]string{"tc", "-d", "-j"}, args...)...)
			var list []map[string]any
			out := p.RunCmd(t, cmd).Stdout
			if json.Unmarshal([]byte(out), &list) != nil {
				list = []map[string]any{{"text": out}} // 6.1's tc writes broken JSON for some kinds
			}
			for i, o := range list {
				f.flatten(f.free(fmt.Sprintf("%s %s %s %d %v", p.word, kind, dev, i, o["kind"])), "", o)
			}
		}
	}
}

// sysctls reads what the node has: of every interface that may be a plugin's, and those of the whole namespace that
// plugins write.
func (p *place) sysctls(f facts) {
	const root = "/proc/sys/net/"
	_ = p.Do(func() error {
		buf := make([]byte, 4096)
		for _, key := range []string{"ipv4/ip_forward", "core/somaxconn", "ipv4/ip_local_port_range", "ipv4/ip_unprivileged_port_start"} {
			f.put(p.word+" sysctl net", key, readValue(root+key, buf))
		}
		for _, dir := range []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"} {
			devices, _ := os.ReadDir(root + dir)
			for _, dev := range devices {
				if dev.Name() == "lo" || strings.HasPrefix(dev.Name(), "to-") {
					continue
				}
				object := p.word + " sysctl " + dev.Name()
				f.put(object, "", "there")
				keys, _ := os.ReadDir(root + dir + "/" + dev.Name())
				for _, key := range keys {
					if key.Name() != "stable_secret" {
						f.put(object, dir+"/"+key.Name(), readValue(root+dir+"/"+dev.Name()+"/"+key.Name(), buf))
					}
				}
			}
		}
		return nil
	})
}

// readValue reads a sysctl, without what package os does for files that may block: there are thousands.
func readValue(path string, buf []byte) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(buf[:n])), " ")
}

// files are those that plugins keep: leases and what they have to remember.
func (s *stage) files(f facts) {
	for _, dir := range []string{"/var/lib/cni", "/run"} {
		_ = filepath.WalkDir(s.machine.Path(dir), func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, s.machine.Path(""))
			switch {
			case err != nil:
				return nil //nolint:nilerr // what goes meanwhile isn't there
			case name == "/run/nsinit":
				return fs.SkipDir
			case s.inside != nil && name == "/run/netns/"+containerID:
				return nil
			case d.Type().IsRegular():
				f.put("file "+name, "", "there")
				f.put("file "+name, "content", readFile(path))
			}
			return nil
		})
	}
}
