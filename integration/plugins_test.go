package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// fakePlugin is a CNI plugin of a dozen lines: as "wire" it makes an interface with an address, as "pool" it gives one,
// and behind others it hands their result on. It writes down how it was called. The file fail-COMMAND-NAME makes it fail,
// hang-COMMAND-NAME hang.
const fakePlugin = `#!/bin/sh
here=$(dirname "$0") name=$(basename "$0") conf=$(cat)
printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$CNI_COMMAND" "$name" "$CNI_IFNAME" "$CNI_NETNS" "$CNI_ARGS" "$conf" >>"$here/calls"
[ ! -e "$here/hang-$CNI_COMMAND-$name" ] || { echo $$ >"$here/hangs"; exec sleep 60; }
[ ! -e "$here/fail-$CNI_COMMAND-$name" ] || { echo '{"code": 107, "msg": "the disc is flat", "details": "try again"}'; exit 1; }
[ $CNI_COMMAND = ADD ] || exit 0
ip='"address": "10.99.0.7/24", "gateway": "10.99.0.1"'
case $name in
wire)
	ip link add wire0 type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS" &&
	ip link set wire0 up && ip addr add 10.99.0.1/24 dev wire0 &&
	nsenter --net="$CNI_NETNS" sh -c "ip addr add 10.99.0.7/24 dev $CNI_IFNAME && ip link set $CNI_IFNAME up && ip route add default via 10.99.0.1" || exit 1
	echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "wire0"}, {"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}],
		"ips": [{"interface": 1, '$ip'}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.99.0.1"]}}' ;;
pool) echo '{"cniVersion": "1.0.0", "ips": [{'$ip'}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {}}' ;;
*) echo "$conf" | sed 's/.*"prevResult"://; s/,"type":.*//' ;;
esac
`

// plugins is a folder of fake plugins, and the networks that use them.
type plugins struct {
	*machine
	dir string
}

func newPlugins(t *testing.T, names ...string) *plugins {
	p := &plugins{newMachine(t), t.TempDir()}
	for _, name := range names {
		write(t, filepath.Join(p.dir, name), fakePlugin)
		if err := os.Chmod(filepath.Join(p.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *plugins) network(t *testing.T, name, list string) {
	write(t, filepath.Join(p.dir, name+".conflist"), fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, list))
}

func (p *plugins) flags(args ...string) []string {
	return append([]string{"--network-config-dir", p.dir, "--plugin-dir", p.dir}, args...)
}

// A pluginCall is one line of what the fake plugins wrote down.
type pluginCall struct {
	command, name, ifName, netns, args string
	conf                               struct {
		Name, CNIVersion, Type, Nsinit string
		RuntimeConfig                  map[string]any
		PrevResult                     *struct {
			IPs []struct{ Address string }
		}
	}
}

func (p *plugins) calls(t *testing.T) (all []pluginCall, order []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), "\t", 6)
		c := pluginCall{command: f[0], name: f[1], ifName: f[2], netns: f[3], args: f[4]}
		if err := json.Unmarshal([]byte(f[5]), &c.conf); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all, order = append(all, c), append(order, c.command+" "+c.name)
	}
	return all, order
}

// Plugins that nsinit doesn't have are run as CNI's runtimes run them: in the order of the list, each with the result of
// the one before; at the end the other way round, all with the last result.
func TestPluginsAreRun(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "wire", "third", "tuning")
	p.network(t, "lan", `{"type": "wire", "capabilities": {"mac": true, "ips": false}}, {"type": "third"},
		{"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}, {"type": "tuning", "nsinit": "exec"}`)
	r := p.run(t, p.flags("--network", "lan:mac=02:00:00:00:00:07", "--", "sh", "-c",
		"ip -br addr show eth0; ip route; cat /proc/sys/net/ipv4/conf/eth0/arp_filter; cat /etc/resolv.conf")...).OK(t)
	for _, want := range []string{"10.99.0.7/24", "default via 10.99.0.1", "\n1\n", "nameserver 10.99.0.1"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the container lacks %q:\n%s", want, r.Stdout)
		}
	}
	calls, order := p.calls(t)
	if want := []string{"ADD wire", "ADD third", "ADD tuning", "DEL tuning", "DEL third", "DEL wire"}; !slices.Equal(order, want) {
		t.Fatalf("calls %q, want %q", order, want)
	}
	for i, c := range calls {
		if c.ifName != "eth0" || c.conf.Name != "lan" || c.conf.CNIVersion != "1.0.0" || c.conf.Type != c.name || c.conf.Nsinit != "" {
			t.Errorf("%s: %+v", order[i], c)
		}
		if i == 0 {
			if c.conf.PrevResult != nil || c.conf.RuntimeConfig["mac"] != "02:00:00:00:00:07" {
				t.Errorf("the first call: %+v", c.conf)
			}
			continue
		}
		if c.conf.PrevResult == nil || len(c.conf.PrevResult.IPs) != 1 || c.conf.PrevResult.IPs[0].Address != "10.99.0.7/24" {
			t.Errorf("%s: prevResult %+v", order[i], c.conf.PrevResult)
		}
	}
	p.nothingKept(t)
}

// nothingKept wants no result and no record.
func (p *plugins) nothingKept(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/var/lib/cni/results", "/run/nsinit/containers"} {
		if left, _ := os.ReadDir(p.Path(dir)); len(left) > 0 {
			t.Errorf("left in %s: %s", dir, left[0].Name())
		}
	}
}

// A plugin gives the addresses of an interface that nsinit makes.
func TestAddressPluginIsRun(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "pool")
	p.network(t, "lan", `{"type": "bridge", "bridge": "lan0", "isGateway": true, "ipam": {"type": "pool", "zone": "b"}}`)
	c := p.detached(t, "c", p.flags("--network", "lan", "--", "sleep", "60")...)
	r := c.exec(t, "sh", "-c", "ip -br addr show eth0; ip route").OK(t)
	if !strings.Contains(r.Stdout, "10.99.0.7/24") || !strings.Contains(r.Stdout, "default via 10.99.0.1") {
		t.Errorf("the container has\n%s", r.Stdout)
	}
	if r := p.Run(t, "ip", "-br", "addr", "show", "lan0").OK(t); !strings.Contains(r.Stdout, "10.99.0.1/24") {
		t.Errorf("the bridge has %s", r.Stdout)
	}
	p.nsinit(t, "delete", "-f", "c").OK(t)
	if _, order := p.calls(t); !slices.Equal(order, []string{"ADD pool", "DEL pool"}) {
		t.Errorf("calls %q", order)
	}
	p.nothingKept(t)
	p.nsinit(t, "gc", "--all").OK(t)
}

// A plugin that isn't there is an error before anything is made; one that fails is taken back with those before it.
func TestPluginFails(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "wire", "third")
	p.network(t, "gone", `{"type": "wire"}, {"type": "portmapp"}`)
	r := p.run(t, p.flags("--network", "gone", "--", "true")...).Want(t, 125)
	if !strings.Contains(r.Stderr, `plugins[1].type: plugin "portmapp": file does not exist in `+p.dir) {
		t.Errorf("error %s", r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "calls")); err == nil {
		t.Error("a plugin was run although another one isn't there")
	}
	p.network(t, "lan", `{"type": "wire"}, {"type": "third"}`)
	write(t, filepath.Join(p.dir, "fail-ADD-third"), "")
	r = p.run(t, p.flags("--network", "lan", "--", "true")...).Want(t, 125)
	if !strings.Contains(r.Stderr, "exec:third: ADD: the disc is flat; try again") {
		t.Errorf("error %s", r.Stderr)
	}
	if _, order := p.calls(t); !slices.Equal(order, []string{"ADD wire", "ADD third", "DEL third", "DEL wire"}) {
		t.Errorf("calls %q", order)
	}
	p.nothingKept(t)
}

// A DEL that fails stops no other, and its record stays for gc.
func TestPluginDelFails(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "wire", "third")
	p.network(t, "lan", `{"type": "wire"}, {"type": "third"}`)
	write(t, filepath.Join(p.dir, "fail-DEL-third"), "")
	r := p.run(t, p.flags("--network", "lan", "--name", "c", "--", "true")...).OK(t)
	if !strings.Contains(r.Stderr, "the disc is flat") {
		t.Errorf("nothing is told of the failure: %q", r.Stderr)
	}
	if err := os.Remove(filepath.Join(p.dir, "fail-DEL-third")); err != nil {
		t.Fatal(err)
	}
	p.nsinit(t, "gc").OK(t)
	_, order := p.calls(t)
	if want := []string{"ADD wire", "ADD third", "DEL third", "DEL wire", "DEL third", "DEL wire"}; !slices.Equal(order, want) {
		t.Errorf("calls %q, want %q", order, want)
	}
	p.nothingKept(t)
}

// A start that is killed while a plugin runs leaves a record that gc has DEL run from.
func TestPluginKilled(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "wire", "third")
	p.network(t, "lan", `{"type": "wire"}, {"type": "third"}`)
	write(t, filepath.Join(p.dir, "hang-ADD-third"), "")
	start := p.start(t, p.flags("--network", "lan", "--name", "c", "--", "true")...)
	netsetuptest.Poll(t, func() error {
		_, err := os.Stat(filepath.Join(p.dir, "hangs"))
		return err
	})
	start.Signal(t, syscall.SIGKILL)
	start.Wait(t)
	p.nsinit(t, "gc").OK(t)
	if _, order := p.calls(t); !slices.Equal(order, []string{"ADD wire", "ADD third", "DEL third", "DEL wire"}) {
		t.Errorf("calls %q", order)
	}
	p.nothingKept(t)
	p.Run(t, "sh", "-c", "kill -KILL $(cat "+filepath.Join(p.dir, "hangs")+")").OK(t) // the plugin itself
}

// CHECK is a plugin's own, where the list and its version have one.
func TestPluginCheck(t *testing.T) {
	t.Parallel()
	p := newPlugins(t, "wire", "third")
	p.network(t, "lan", `{"type": "wire"}, {"type": "third"}`)
	p.detached(t, "c", p.flags("--network", "lan", "--", "sleep", "60")...)
	p.nsinit(t, "network", "check", "c").OK(t)
	write(t, filepath.Join(p.dir, "fail-CHECK-third"), "")
	r := p.nsinit(t, "network", "check", "c")
	if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "the disc is flat") {
		t.Errorf("check: code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	p.nsinit(t, "delete", "-f", "c").OK(t)
	p.nothingKept(t)
}

// dhcp is CNI's own plugin with its daemon, which talks through the interface to a server behind the bridge.
func TestDHCP(t *testing.T) {
	t.Parallel()
	long(t)
	dir := referencePlugin(t, "dhcp")
	p := newPlugins(t)
	p.Run(t, "sh", "-c", `mkdir -p /run/cni && ip link add lan0 type bridge && ip addr add 10.66.0.1/24 dev lan0 && ip link set lan0 up &&
		printf 'start 10.66.0.50\nend 10.66.0.60\ninterface lan0\nopt subnet 255.255.255.0\nopt router 10.66.0.1\nopt lease 600\nlease_file /run/leases\npidfile /run/udhcpd.pid\n' >/run/udhcpd.conf && : >/run/leases`).OK(t)
	server := p.Start(t, exec.Command("busybox", "udhcpd", "-f", "/run/udhcpd.conf"))
	daemon := p.Start(t, exec.Command(filepath.Join(dir, "dhcp"), "daemon"))
	netsetuptest.Poll(t, func() error { _, err := os.Stat(p.Path("/run/cni/dhcp.sock")); return err })
	p.network(t, "lan", `{"type": "bridge", "bridge": "lan0", "ipam": {"type": "dhcp"}}`)
	r := p.run(t, "--network-config-dir", p.dir, "--plugin-dir", dir, "--network", "lan", "--",
		"sh", "-c", "ip -br addr show eth0; ip route; ping -c1 -w5 10.66.0.1").OK(t)
	if !regexp.MustCompile(`10\.66\.0\.(5[0-9]|60)/`).MatchString(r.Stdout) || !strings.Contains(r.Stdout, "default via 10.66.0.1") {
		t.Errorf("the container has\n%s", r.Stdout)
	}
	p.nothingKept(t)
	for _, process := range []*netsetuptest.Process{daemon, server} {
		process.Signal(t, syscall.SIGKILL)
		process.Wait(t)
	}
	p.Run(t, "ip", "link", "del", "lan0").OK(t)
}

// referencePlugin builds one of CNI's own address plugins, or cnitool, and returns its folder. NSINIT_CNI_PLUGINS is one that is built.
func referencePlugin(t *testing.T, name string) string {
	t.Helper()
	if dir := os.Getenv("NSINIT_CNI_PLUGINS"); dir != "" {
		return dir
	}
	module, folder := "github.com/containernetworking/plugins", "./plugins/ipam/"+name
	if name == "cnitool" {
		module, folder = "github.com/containernetworking/cni", "./cnitool"
	}
	source, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Skipf("needs Go, or the reference plugins in NSINIT_CNI_PLUGINS: %v", err)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", folder)
	build.Dir = strings.TrimSpace(string(source))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return dir
}
