package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// pluginLoop is a runtime in a few lines of shell: again and again a namespace, ADD of a bridge, a port map and a
// firewall, and DEL of all, the last one first. What it saw of each attachment goes to stdout.
const pluginLoop = `
me=$1 rounds=$2 dir=$3
call() { # COMMAND TYPE PREVRESULT
	prev=; [ -z "$3" ] || prev=', "prevResult": '$3
	CNI_COMMAND=$1 CNI_CONTAINERID=$id CNI_NETNS=/run/netns/$id CNI_IFNAME=eth0 CNI_PATH=$dir "$dir/$2" <<-EOF
		{"cniVersion": "1.0.0", "name": "lan", "type": "$2"$prev$(cat "$dir/$2.keys")
		, "runtimeConfig": {"portMappings": [{"hostPort": $((9000 + me)), "containerPort": 80, "protocol": "tcp"}]}}
	EOF
}
for round in $(seq "$rounds"); do
	id=c$me-$round
	ip netns add "$id"
	first=$(call ADD bridge "") || { echo "$id: bridge: $first"; exit 1; }
	result=$(call ADD portmap "$first") || { echo "$id: portmap: $result"; exit 1; }
	result=$(call ADD firewall "$result") || { echo "$id: firewall: $result"; exit 1; }
	address=$(ip -n "$id" -4 -o addr show dev eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1)
	mkdir "$dir/has-$address" || { echo "$id: $address is another's"; exit 1; }
	nft list ruleset | grep -q "$address . 80" || { echo "$id: no port map"; exit 1; }
	ip netns exec "$id" ping -c 1 -W 5 -q 10.77.0.1 >/dev/null || { echo "$id: no answer"; exit 1; }
	echo "$address"
	rmdir "$dir/has-$address"
	for type in firewall portmap bridge; do
		answer=$(call DEL $type "$result") || { echo "$id: DEL $type: $answer"; exit 1; }
	done
	ip netns del "$id"
done
`

// TestEightPluginCallersAtOnce has eight runtimes attach and detach containers of one network all the time: no failure, no
// address twice at once, nothing left.
func TestEightPluginCallersAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 8
	if few() {
		rounds = 2
	}
	h := newPluginHost(t, pluginChain{plugins: []string{chainBridge, chainPortmap, chainFirewall}}, false)
	dir := pluginFolder(t, h)
	holder := h.hold(t)
	ps := make([]*netsetuptest.Process, 8)
	for i := range ps {
		ps[i] = h.Start(t, h.Command("sh", "-c", pluginLoop, "runtime", fmt.Sprint(i), fmt.Sprint(rounds), dir))
	}
	for _, p := range ps {
		<-p.Done() // all of it takes longer than one command may
		r := p.Wait(t)
		addresses := strings.Fields(r.OK(t).Stdout)
		if len(addresses) != rounds || r.Stderr != "" {
			t.Errorf("%d attachments of %d: %s%s", len(addresses), rounds, r.Stdout, r.Stderr)
		}
		for _, a := range addresses {
			if a+"/24" == holder {
				t.Errorf("%s is the address of a container that is there all the time", a)
			}
		}
	}
	h.delAll(t, "")
	h.asBefore(t)
}

// hold attaches a container that stays, and returns its address.
func (h *pluginHost) hold(t *testing.T) string {
	t.Helper()
	r := h.addFirst(t, len(h.chain.plugins)).OK(t)
	return netsetuptest.Decode[cniResult](t, r).IPs[0].Address
}

// pluginFolder has links to nsinit, and for each plugin of the chain the keys of its configuration in TYPE.keys.
func pluginFolder(t *testing.T, h *pluginHost) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	h.nsinit(t, "cni", "install", dir).OK(t)
	for _, plugin := range h.chain.plugins {
		var conf map[string]json.RawMessage
		if err := json.Unmarshal([]byte(plugin), &conf); err != nil {
			t.Fatal(err)
		}
		kind := strings.Trim(string(conf["type"]), `"`)
		keys := ""
		for key, value := range conf {
			if key != "type" && key != "runtimeConfig" {
				keys += fmt.Sprintf(", %q: %s", key, value)
			}
		}
		write(t, filepath.Join(dir, kind+".keys"), keys)
	}
	return dir
}

// TestOneAttachmentOneADD has eight ADDs of the same attachment at once: one makes it, and the others say so.
func TestOneAttachmentOneADD(t *testing.T) {
	t.Parallel()
	h := newPluginHost(t, pluginChain{plugins: []string{chainBridge}}, false)
	rounds := 10
	if few() {
		rounds = 2
	}
	for range rounds {
		results := make([]netsetuptest.Result, 8)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i] = h.call(t, "ADD", 0, "", 0) })
		}
		wg.Wait()
		won := 0
		for _, r := range results {
			switch {
			case r.Code == 0:
				won++
			case !strings.Contains(r.Stdout, "attached already"):
				t.Errorf("exit code %d: %s", r.Code, r.Stdout)
			}
		}
		if won != 1 {
			t.Errorf("%d of 8 made it", won)
		}
		h.delAll(t, "")
		h.asBefore(t)
	}
}
