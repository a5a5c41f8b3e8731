package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// A pluginChain is a list of plugins, as a runtime calls them one by one.
type pluginChain struct {
	name    string
	plugins []string                          // configurations, without what all of them have
	prepare func(t testing.TB, h *pluginHost) // nil: nothing
}

const chainIPAM = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`

const (
	chainBridge    = `{"type": "bridge", "bridge": "lan0", "isGateway": true, "ipMasq": true, "hairpinMode": true, ` + chainIPAM + `}`
	chainPtP       = `{"type": "ptp", "ipMasq": true, ` + chainIPAM + `}`
	chainPortmap   = `{"type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}`
	chainFirewall  = `{"type": "firewall", "ingressPolicy": "same-bridge"}`
	chainBandwidth = `{"type": "bandwidth", "ingressRate": 1000000, "ingressBurst": 100000, "egressRate": 1000000, "egressBurst": 100000}`
	chainTuning    = `{"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.core.somaxconn": "500"}, "mtu": 1400, "txQLen": 77}`
)

func pluginChains() []pluginChain {
	return []pluginChain{
		{name: "bridge", plugins: []string{chainBridge, chainPortmap, chainFirewall, chainBandwidth, chainTuning}},
		{name: "ptp", plugins: []string{chainPtP, chainPortmap}},
		{name: "sbr", plugins: []string{chainBridge, `{"type": "sbr"}`}},
		{name: "vrf", plugins: []string{chainPtP, `{"type": "vrf", "vrfname": "red"}`}},
		{name: "macspoofchk", plugins: []string{`{"type": "bridge", "bridge": "lan0", "macspoofchk": true, ` + chainIPAM + `}`}},
		{name: "macvlan", plugins: []string{`{"type": "macvlan", "master": "to-outside", ` + chainIPAM + `}`, chainTuning}, prepare: outside},
		{name: "ipvlan", plugins: []string{`{"type": "ipvlan", "master": "to-outside", ` + chainIPAM + `}`}, prepare: outside},
		{name: "vlan", plugins: []string{`{"type": "vlan", "master": "to-outside", "vlanId": 7, ` + chainIPAM + `}`}, prepare: outside},
		{name: "dummy", plugins: []string{`{"type": "dummy", ` + chainIPAM + `}`}},
		{name: "tap", plugins: []string{`{"type": "tap", ` + chainIPAM + `}`}, prepare: func(t testing.TB, h *pluginHost) { h.Run(t, "sh", "-c", tun).OK(t) }},
		{name: "host-device", plugins: []string{`{"type": "host-device", "device": "card", ` + chainIPAM + `}`, chainTuning}, prepare: networkCard},
	}
}

func outside(t testing.TB, h *pluginHost) { h.Outside(t) }

// networkCard makes a device of the host that has an address and a route to lose.
func networkCard(t testing.TB, h *pluginHost) {
	h.Run(t, "sh", "-ec", `ip link add card type veth peer name cable
		ip link set card addrgenmode none; ip link set cable addrgenmode none
		ip link set card up; ip link set cable up
		ip addr add 192.0.2.9/24 dev card; ip addr add 2001:db8:9::9/64 dev card nodad
		ip route add 198.18.0.0/15 via 192.0.2.1 dev card`).OK(t)
}

// A pluginHost is a machine whose runtime calls nsinit as its plugins, and what it was before an attachment.
type pluginHost struct {
	*machine
	chain  pluginChain
	before netsetuptest.Snapshot
	inside netsetuptest.Snapshot
}

const pluginNetNS = "blue"

// vrfRules are the kernel's own in a namespace that has ever had a VRF: they stay, and aren't made twice (vrf_newlink).
var vrfRules = []string{"rule4 1000: l3mdev", "rule6 1000: l3mdev"}

// newPluginHost makes one. Unless it is to be cold, the network's own things, its bridge and the firewall's table, are
// there from an earlier attachment.
func newPluginHost(t *testing.T, chain pluginChain, cold bool) *pluginHost {
	t.Helper()
	h := &pluginHost{machine: newMachine(t), chain: chain}
	h.Dirty() // the state is compared whole
	if chain.prepare != nil {
		chain.prepare(t, h)
	}
	h.Run(t, "ip", "netns", "add", pluginNetNS).OK(t)
	h.gc(t) // the state directory stays
	h.Run(t, "mkdir", "-p", "/var/lib/cni/networks").OK(t)
	if !cold {
		if r := h.addFirst(t, len(chain.plugins)); r.Code != 0 {
			if strings.Contains(r.Stdout, "kernel has no") {
				t.Skip(r.Stdout)
			}
			t.Fatal(r.Stdout)
		}
		h.delAll(t, "")
	}
	h.before = h.Settled(t)
	t.Run("before", func(t *testing.T) { // its end lets go of the namespace
		h.inside = h.Named(t, pluginNetNS).NetworkSnapshot(t)
	})
	return h
}

// call calls the plugin i of the chain; kill is the change before which it is killed, 0 = none.
func (h *pluginHost) call(t *testing.T, command string, i int, prevResult string, kill int) netsetuptest.Result {
	t.Helper()
	var conf map[string]any
	if err := json.Unmarshal([]byte(h.chain.plugins[i]), &conf); err != nil {
		t.Fatal(err)
	}
	conf["cniVersion"], conf["name"] = "1.1.0", "lan"
	if prevResult != "" {
		conf["prevResult"] = json.RawMessage(prevResult)
	}
	if command == "GC" {
		conf["cni.dev/valid-attachments"] = []any{}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(gatesBin)
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command, "CNI_PATH=/nowhere")
	if command != "GC" {
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/"+pluginNetNS)
	}
	if kill > 0 {
		cmd.Env = append(cmd.Env, fmt.Sprint("NSINIT_KILL=", kill))
	}
	cmd.Stdin = strings.NewReader(string(text))
	return h.RunCmd(t, cmd)
}

// addFirst calls the first n plugins with ADD, as far as they succeed, and returns the last answer.
func (h *pluginHost) addFirst(t *testing.T, n int) (r netsetuptest.Result) {
	t.Helper()
	for i := 0; i < n && r.Code == 0; i++ {
		r = h.call(t, "ADD", i, r.Stdout, 0)
	}
	return r
}

// delAll calls all plugins with DEL, the last one first: a runtime doesn't know how far ADD came.
func (h *pluginHost) delAll(t *testing.T, prevResult string) {
	t.Helper()
	for i := range slices.Backward(h.chain.plugins) {
		h.call(t, "DEL", i, prevResult, 0).OK(t)
	}
}

// gcAll calls all plugins with GC, and no attachment is valid.
func (h *pluginHost) gcAll(t *testing.T) {
	t.Helper()
	for i := range h.chain.plugins {
		h.call(t, "GC", i, "", 0).OK(t)
	}
}

func (h *pluginHost) gc(t *testing.T) {
	t.Helper()
	if r := h.nsinit(t, "gc").OK(t); r.Stderr != "" {
		t.Errorf("gc: %s", r.Stderr)
	}
}

// A recovery is what is done after a kill.
type recovery struct {
	name string
	do   func(t *testing.T, h *pluginHost, prevResult string)
}

func recoveries() []recovery {
	return []recovery{
		{"DEL", func(t *testing.T, h *pluginHost, _ string) { h.delAll(t, "") }},
		{"DEL with prevResult", func(t *testing.T, h *pluginHost, prevResult string) { h.delAll(t, prevResult) }},
		{"GC", func(t *testing.T, h *pluginHost, _ string) { h.gcAll(t) }},
		{"ADD and DEL", func(t *testing.T, h *pluginHost, prevResult string) { h.again(t); h.delAll(t, prevResult) }},
		// The plugin that was killed is gc's, and those before it have a runtime.
		{"gc and DEL", func(t *testing.T, h *pluginHost, prevResult string) { h.gc(t); h.delAll(t, prevResult) }},
		{"namespace gone and gc", func(t *testing.T, h *pluginHost, _ string) { h.losesNetNS(t, h.gc) }},
		{"namespace gone and DEL", func(t *testing.T, h *pluginHost, _ string) {
			h.losesNetNS(t, func(t *testing.T) { h.delAll(t, "") })
		}},
	}
}

// again is a runtime that tries the whole list once more, from where it has to: a finished ADD is refused.
func (h *pluginHost) again(t *testing.T) {
	t.Helper()
	prevResult := ""
	for i := range h.chain.plugins {
		r := h.call(t, "ADD", i, prevResult, 0)
		if r.Code != 0 && strings.Contains(r.Stdout, "attached already") {
			h.call(t, "DEL", i, prevResult, 0).OK(t)
			r = h.call(t, "ADD", i, prevResult, 0)
		}
		prevResult = r.OK(t).Stdout
	}
}

func (h *pluginHost) losesNetNS(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	h.Run(t, "ip", "netns", "del", pluginNetNS).OK(t)
	f(t)
	h.Run(t, "ip", "netns", "add", pluginNetNS).OK(t)
}

// asBefore compares host and namespace with what they were.
func (h *pluginHost) asBefore(t *testing.T) {
	t.Helper()
	const name = "mount /run/netns/" + pluginNetNS // it may be another one
	netsetuptest.Poll(t, func() error {
		if d := netsetuptest.Diff(h.before.Without(name), h.Snapshot(t).Without(name)); d != "" {
			return fmt.Errorf("the host is not as it was (- before, + now):\n%s", d)
		}
		return nil
	})
	inside := h.Named(t, pluginNetNS).NetworkSnapshot(t)
	if d := netsetuptest.Diff(h.inside.Without(vrfRules...), inside.Without(vrfRules...)); d != "" {
		t.Errorf("the namespace is not as it was (- before, + now):\n%s", d)
	}
}

// killedBefore is the place where a command was killed by its gate; ok is false if it came through.
func killedBefore(t *testing.T, r netsetuptest.Result) (place string, ok bool) {
	t.Helper()
	if r.Signal != unix.SIGKILL {
		r.OK(t)
		return "", false
	}
	if r.Stdout != "" {
		t.Errorf("it answered, and was killed: %s", r.Stdout)
	}
	_, place, _ = strings.Cut(strings.TrimSpace(r.Stderr), "killed before ")
	return place, true
}

// eachKill kills plugin i of the chain before each change that command makes, after which a recovery has to leave
// nothing: each time the next one of all.
func (h *pluginHost) eachKill(t *testing.T, command string, i int, all []recovery) (kills int) {
	t.Helper()
	stride := 1
	if few() {
		stride = 5
	}
	for n := 1; ; n += stride {
		how := all[(n/stride+i)%len(all)]
		r, prevResult := h.killed(t, command, i, n)
		place, killed := killedBefore(t, r)
		how.do(t, h, prevResult)
		if !t.Run(fmt.Sprint(command, n, "/", how.name), h.asBefore) {
			t.Logf("killed before %s", place)
			return n
		}
		if !killed {
			return n - 1
		}
	}
}

// killed has the plugins before i called, for DEL all of them, and then i with the kill. It returns how that one ended,
// and the result that a runtime knows.
func (h *pluginHost) killed(t *testing.T, command string, i, n int) (netsetuptest.Result, string) {
	t.Helper()
	if command == "ADD" {
		prevResult := h.addFirst(t, i).OK(t).Stdout
		return h.call(t, "ADD", i, prevResult, n), prevResult
	}
	prevResult := h.addFirst(t, len(h.chain.plugins)).OK(t).Stdout
	for j := len(h.chain.plugins) - 1; j > i; j-- {
		h.call(t, "DEL", j, prevResult, 0).OK(t)
	}
	return h.call(t, "DEL", i, prevResult, n), prevResult
}

// TestPluginKilledAnywhere kills each plugin of each chain before each change that its ADD and its DEL make, of the
// kernel and of files. What a runtime or nsinit gc does then leaves nothing.
func TestPluginKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, chain := range pluginChains() {
		t.Run(chain.name, func(t *testing.T) {
			t.Parallel()
			h := newPluginHost(t, chain, false)
			for i := range chain.plugins {
				added := h.eachKill(t, "ADD", i, recoveries())
				if t.Failed() {
					return
				}
				deleted := h.eachKill(t, "DEL", i, recoveries())
				if t.Failed() {
					return
				}
				t.Logf("%s: killed at %d places of ADD and %d of DEL", chain.plugins[i], added, deleted)
				if added < 5 || deleted < 2 {
					t.Error("too few: the binary has no gates there")
				}
			}
		})
	}
}

// TestFirstPluginKilledAnywhere does it to the network's first attachment, which makes the bridge, the firewall's table
// and the host's forwarding as well: those are gc --all's.
func TestFirstPluginKilledAnywhere(t *testing.T) {
	t.Parallel()
	chain := pluginChains()[0]
	h := newPluginHost(t, chain, true)
	everything := []recovery{{"DEL and gc --all", func(t *testing.T, h *pluginHost, prevResult string) {
		h.delAll(t, prevResult)
		h.nsinit(t, "gc", "--all").OK(t)
		h.Run(t, "rm", "-rf", "/var/lib/cni/networks/lan").OK(t) // the network's file would still be there
	}}}
	for i := range chain.plugins {
		kills := h.eachKill(t, "ADD", i, everything)
		t.Logf("%s: killed at %d places", chain.plugins[i], kills)
		if t.Failed() {
			return
		}
	}
	if left, err := os.ReadDir(h.Path("/var/lib/nsinit")); err == nil && len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
