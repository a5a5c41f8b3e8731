package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A replayed network is one that nsinit makes on one host, and the commands that it prints make on another.
type replayed struct {
	name    string
	prepare string   // on both hosts first
	list    string   // a conflist's plugins; "" = none
	flags   []string // LIST stands for the list's file
}

const (
	dualPools = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.61.0.0/24"}], [{"subnet": "fd00:61::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`
	fourPool  = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.61.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	sixPool   = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00:61::/64"}]], "routes": [{"dst": "::/0"}]}`
	written   = `"ipam": {"type": "static", "addresses": [{"address": "10.61.0.2/24", "gateway": "10.61.0.1"}, {"address": "fd00:61::2/64"}], "routes": [{"dst": "10.62.0.0/16", "gw": "10.61.0.9"}]}`
	masqLan   = `{"type": "bridge", "bridge": "br-lan", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.61.0.0/24"}], [{"subnet": "fd00:61::/64"}]]}}`
	card      = "ip link add card0 mtu 1400 address 02:00:00:00:0c:00 type veth peer name card1; ip link set card0 addrgenmode none; ip link set card1 addrgenmode none; ip link set card0 up; ip link set card1 up"
	tun       = "test -c /dev/net/tun || modprobe tun"
)

var replays = []replayed{
	{name: "bridge", list: masqLan},
	{name: "bridge without gateway", list: `{"type": "bridge", "bridge": "br-lan", ` + written + `}`},
	{name: "bridge that is there", prepare: "ip link add br-lan type bridge; ip addr add 10.61.0.1/24 dev br-lan; ip link set br-lan addrgenmode none; ip link set br-lan up", list: `{"type": "bridge", "bridge": "br-lan", "isGateway": true, "mtu": 1400, ` + fourPool + `}`},
	{name: "bridge IPv6 alone", list: `{"type": "bridge", "bridge": "br-lan", "isGateway": true, "ipMasq": true, ` + sixPool + `}`},
	{name: "bridge, vlan", list: `{"type": "bridge", "bridge": "br-lan", "vlan": 7, "isDefaultGateway": true, "ipMasq": true, ` + dualPools + `}`},
	{name: "bridge, vlanTrunk", list: `{"type": "bridge", "bridge": "br-lan", "vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 20}], "preserveDefaultVlan": false, ` + written + `}`},
	{name: "host forwards", prepare: "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", list: masqLan},
	{name: "ptp", list: `{"type": "ptp", "ipMasq": true, ` + dualPools + `}`},
	{name: "ptp plain", list: `{"type": "ptp", "mtu": 1300, ` + fourPool + `}`},
	{name: "two", list: masqLan, flags: []string{"--network", "LIST:mac=02:00:00:00:00:07", "--network", "LIST:interface_name=lan7", "--network", "bridge:ip=10.63.0.2/24,mtu=1400"}},
	{name: "macvlan", prepare: card, list: `{"type": "macvlan", "master": "card0", "mode": "private", ` + written + `}`},
	{name: "ipvlan", prepare: card, list: `{"type": "ipvlan", "master": "card0", "mode": "l3", ` + written + `}`},
	{name: "vlan", prepare: card, list: `{"type": "vlan", "master": "card0", "vlanId": 7, ` + written + `}`},
	{name: "dummy", list: `{"type": "dummy", ` + written + `}`},
	{name: "host-device", prepare: card, list: `{"type": "host-device", "device": "card0", ` + written + `}`},
	{name: "tap", prepare: tun, list: `{"type": "tap", "owner": 1000, "multiQueue": true, ` + written + `}`},
	{name: "bandwidth", list: masqLan + `, {"type": "bandwidth", "ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 4000000, "egressBurst": 400000}`},
	{name: "tuning", list: masqLan + `, {"type": "tuning", "mac": "02:00:00:00:00:09", "mtu": 1300, "promisc": true, "txQLen": 77, "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.core.somaxconn": "500"}}`},
	{name: "macspoofchk", list: `{"type": "bridge", "bridge": "br-lan", "macspoofchk": true, ` + written + `}`},
	{name: "published", list: masqLan + `, {"type": "portmap", "capabilities": {"portMappings": true}}`, flags: []string{"--network", "LIST", "-p", "8080-8089:80-89", "-p", "5353:53/udp"}},
	{name: "firewall", list: masqLan + `, {"type": "firewall", "ingressPolicy": "same-bridge"}`},
	{name: "firewall, isolated", list: masqLan + `, {"type": "firewall", "ingressPolicy": "isolated"}`},
	{name: "sbr", list: masqLan + `, {"type": "sbr"}`},
	{name: "vrf", list: masqLan + `, {"type": "vrf", "vrfname": "blue"}`},
	{name: "tuning of a tap", prepare: tun, list: `{"type": "tap", ` + written + `}, {"type": "tuning", "allmulti": true, "mtu": 1300}`},
}

// TestDryRunReplays has --dry-run print what a start does: run on a host without nsinit, it leaves the same in the kernel.
func TestDryRunReplays(t *testing.T) {
	t.Parallel()
	for _, r := range replays {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.compare(t)
		})
	}
}

func (r replayed) args(t *testing.T) []string {
	t.Helper()
	path := listFile(t, "net", r.list)
	if r.flags == nil {
		return []string{"--network", path}
	}
	var flags []string
	for _, f := range r.flags {
		flags = append(flags, strings.ReplaceAll(f, "LIST", path))
	}
	return flags
}

func (r replayed) compare(t *testing.T) {
	t.Helper()
	args := append([]string{"--name", "web", "--netns-name", "web"}, r.args(t)...)
	hosts := [2]*machine{newMachine(t), newMachine(t)}
	for _, m := range hosts {
		m.Dirty()
		m.Outside(t)
		m.Run(t, "sh", "-ec", r.prepare).OK(t)
	}
	if text, ok := r.start(t, hosts[0], args); !ok {
		t.Skip(text)
	}
	before := hosts[1].Snapshot(t)
	script := hosts[1].nsinit(t, append(append([]string{"run", "--dry-run"}, args...), "--", "sleep", "60")...).OK(t).Stdout
	if d := netsetuptest.Diff(before, hosts[1].Snapshot(t)); d != "" {
		t.Errorf("--dry-run did something:\n%s", d)
	}
	cmd := hosts[1].Command("sh", "-e")
	cmd.Stdin = strings.NewReader(script)
	run := hosts[1].RunCmd(t, cmd)
	if strings.Contains(run.Stderr, "meta l4proto . th dport map") && strings.Contains(run.Stderr, "Operation not supported") {
		// nft 1.0.6 adds `byteorder reg 9 = hton(reg 9, 2, 1)` for the protocol, which kernels refuse since 6.12.
		t.Skip("this nft can't make on this kernel what it lists there itself")
	}
	if run.Code != 0 || run.Stderr != "" {
		t.Fatalf("exit code %d: %s\n%s", run.Code, run.Stderr, script)
	}
	var states [2]netsetuptest.Snapshot
	netsetuptest.Poll(t, func() error { // carriers, and what the kernel does by itself once they are there
		for i, m := range hosts {
			states[i] = kernelState(t, m, m.Named(t, "web"))
		}
		if d := netsetuptest.Diff(states[0], states[1]); d != "" {
			return fmt.Errorf("nsinit (-) and its commands (+) differ:\n%s\nthe commands:\n%s", d, script)
		}
		return nil
	})
}

// start starts a container, and says what the kernel lacks for it.
func (r replayed) start(t *testing.T, m *machine, args []string) (lacks string, ok bool) {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr")) // a pipe would stay open as long as the container lives
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	command := m.command(append(append([]string{"run", "-d"}, args...), "--", "sleep", "600")...)
	command.Stdout, command.Stderr = said, said
	made := m.RunCmd(t, command)
	text, err := os.ReadFile(said.Name())
	if err != nil {
		t.Fatal(err)
	}
	if made.Code != 0 && strings.Contains(string(text), "kernel has no") {
		return strings.TrimSpace(string(text)), false
	}
	if made.Code != 0 {
		t.Fatalf("exit code %d: %s", made.Code, text)
	}
	return "", true
}

// kernelState is the network of a host and of a container on it, without what is random by design: names and addresses of
// hosts' ends, and bridges' MAC addresses, which tell hosts apart.
func kernelState(t *testing.T, m *machine, inside *netsetuptest.Node) netsetuptest.Snapshot {
	t.Helper()
	state := m.NetworkSnapshot(t)
	state = append(state, tcLines(t, m.Node)...)
	for i, l := range m.Links(t) {
		if l.IfName == "lo" {
			continue
		}
		for _, a := range l.AddrInfo {
			if a.Local.IsLinkLocalUnicast() {
				state = state.Replace(a.Local.String(), fmt.Sprintf("fe80#%d", i))
			}
		}
		state = state.Replace(l.Address, fmt.Sprintf("MAC#%d", i))
		state = state.Replace(shortMAC(l.Address), fmt.Sprintf("MAC#%d", i)) // in a bridge's id
		if strings.HasPrefix(l.IfName, "ns") {
			state = state.Replace(l.IfName, fmt.Sprintf("device#%d", i))
		}
	}
	within := append(inside.NetworkSnapshot(t), tcLines(t, inside)...)
	for _, l := range inside.Links(t) {
		if l.LinkInfo.Kind == "vrf" {
			within = within.Replace(l.Address, "MAC#vrf")
		}
	}
	for _, line := range within {
		state = append(state, "inside "+line)
	}
	slices.Sort(state)
	return state.Without("inside sysctl net/ipv4/ping_group_range") // of the default container, not of its network
}

// shortMAC is as ip writes the MAC address in a bridge's id: without leading zeros.
func shortMAC(mac string) string {
	parts := strings.Split(mac, ":")
	for i, p := range parts {
		if parts[i] = strings.TrimLeft(p, "0"); parts[i] == "" {
			parts[i] = "0"
		}
	}
	return strings.Join(parts, ":")
}

// handles are numbers that the kernel or tc makes up.
var handles = regexp.MustCompile(`fh [0-9a-f]+: |fh [0-9a-f:]+ |key ht \S+ bkt \S+ |pref 49\d+ |order \d+ |index \d+ ref \d+ bind \d+|installed \d+ sec( used \d+ sec)?|used \d+ sec`)

// tcLines are queues and filters.
func tcLines(t *testing.T, n *netsetuptest.Node) (lines []string) {
	t.Helper()
	add := func(what string, args ...string) {
		for line := range strings.Lines(n.Run(t, append([]string{"tc"}, args...)...).OK(t).Stdout) {
			line = handles.ReplaceAllString(strings.Join(strings.Fields(line), " "), "")
			// The guard of the host's loopback is a program of BPF, for which tc wants a file.
			guard := strings.Contains(line, "nsinit-loopback") || strings.HasPrefix(line, "qdisc clsact ") || strings.HasSuffix(line, " bpf chain 0")
			if line != "" && !guard {
				lines = append(lines, "tc "+what+": "+line)
			}
		}
	}
	add("qdisc", "qdisc", "show")
	for _, l := range n.Links(t) {
		add("class "+l.IfName, "class", "show", "dev", l.IfName)
		add("filter "+l.IfName, "filter", "show", "dev", l.IfName)
		add("ingress "+l.IfName, "filter", "show", "dev", l.IfName, "ingress")
	}
	return lines
}

// TestTraceSaysCommands has --trace print each step of a network with its commands.
func TestTraceSaysCommands(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	r := m.nsinit(t, "--trace", "run", "--network", lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}]`), "--", "true").OK(t)
	for _, want := range []string{
		"trace: network eth0 addresses ", "trace: network eth0 bridge ", "trace: network eth0 masquerade ",
		"trace:   ip link add ", "trace:   ip -n $NETNS addr add 10.71.0.2/24 ", "trace:   nft add element inet nsinit containers4 '{ 10.71.0.2 }'",
	} {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("--trace lacks %q:\n%s", want, r.Stderr)
		}
	}
}

// TestDryRunAttach prints commands for a running container, which do what attach does.
func TestDryRunAttach(t *testing.T) {
	t.Parallel()
	var states [2]netsetuptest.Snapshot
	path := lan(t, "lan", "br-lan", `[{"subnet": "10.71.0.0/24"}], [{"subnet": "fd00:71::/64"}]`)
	for i, replay := range []bool{false, true} {
		m := newMachine(t)
		m.Dirty()
		c := m.detached(t, "web", "--network", path, "--", "sleep", "60")
		if !replay {
			m.nsinit(t, "network", "attach", "web", path).OK(t)
		} else {
			before := m.Snapshot(t)
			script := m.nsinit(t, "network", "attach", "--dry-run", "web", path).OK(t).Stdout
			if d := netsetuptest.Diff(before, m.Snapshot(t)); d != "" {
				t.Errorf("--dry-run did something:\n%s", d)
			}
			cmd := m.Command("sh", "-e")
			cmd.Stdin = strings.NewReader(script)
			m.RunCmd(t, cmd).OK(t)
		}
		netsetuptest.Poll(t, func() error {
			if l := c.node(t).Link(t, "eth1"); !l.Up() {
				return fmt.Errorf("%+v", l)
			}
			return nil
		})
		states[i] = kernelState(t, m, c.node(t))
	}
	if d := netsetuptest.Diff(states[0], states[1]); d != "" {
		t.Errorf("attach (-) and its commands (+) differ:\n%s", d)
	}
}

func TestDryRunSaysNothingElse(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := m.Snapshot(t)
	for args, want := range map[string]string{
		"--network host":              "the host's",
		"--network none":              "ip netns add",
		"--network ns:/proc/1/ns/net": "ns:/proc/1/ns/net",
		"--network bridge":            "nsinit0",
	} {
		r := m.run(t, append(append([]string{"--dry-run"}, strings.Fields(args)...), "--", "true")...).OK(t)
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("%s: %s lacks %q", args, r.Stdout, want)
		}
	}
	for _, args := range [][]string{{"--network", "nowhere"}, {"--network", "bridge:mtu=3"}, {"--rootfs", "/nowhere"}} {
		if err := oneLine(m.run(t, append(append([]string{"--dry-run"}, args...), "--", "true")...).Want(t, 125)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	if d := netsetuptest.Diff(before, m.Snapshot(t)); d != "" {
		t.Errorf("--dry-run did something:\n%s", d)
	}
}
