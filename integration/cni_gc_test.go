package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// asPlugin calls nsinit as the plugin name, with conf on stdin and what env has of the call.
func (h *cniHost) asPlugin(t *testing.T, name, command, conf string, env ...string) netsetuptest.Result {
	t.Helper()
	links := filepath.Join(h.dir, "links")
	h.nsinit(t, "cni", "install", links).OK(t)
	cmd := h.Command(filepath.Join(links, name))
	cmd.Env = append(append(cmd.Env, "CNI_COMMAND="+command, "CNI_PATH="+links), env...)
	cmd.Stdin = strings.NewReader(conf)
	return h.RunCmd(t, cmd)
}

// leases are the addresses that lan's store has given away.
func (h *cniHost) leases() (names []string) {
	for _, f := range h.files("/var/lib/cni/networks/lan") {
		if base := filepath.Base(f); strings.HasPrefix(base, "10.") {
			names = append(names, base)
		}
	}
	return names
}

const (
	gcBridge = `{"cniVersion": "1.1.0", "name": "lan", "type": "bridge", "bridge": "lan0", "isGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}`
	validBlue = `, "cni.dev/valid-attachments": [{"containerID": "blue", "ifname": "eth0"}]}`
)

// TestCNICollects tells every plugin of a list which attachments are valid: what the others have goes, with their leases.
func TestCNICollects(t *testing.T) {
	t.Parallel()
	h := newCNIHost(t)
	h.named(t, "red")
	for _, name := range []string{"blue", "red"} {
		h.cni(t, "add", "--container-id", name, "--capability-args", strings.ReplaceAll(cniPorts, "8080", map[string]string{"blue": "8080", "red": "8081"}[name]), "lan", name).OK(t)
	}
	// Another tool's host-local has left one, and a container of nsinit is on the same network.
	if err := os.WriteFile(h.Path("/var/lib/cni/networks/lan/10.77.0.200"), []byte("gone\r\neth0"), 0o644); err != nil {
		t.Fatal(err)
	}
	web := h.detached(t, "web", "--network", filepath.Join(h.dir, "lan.conflist"), "--", "sleep", "60")
	for _, p := range []struct{ name, conf string }{
		{"firewall", `{"cniVersion": "1.1.0", "name": "lan", "type": "firewall"` + validBlue},
		{"portmap", `{"cniVersion": "1.1.0", "name": "lan", "type": "portmap"` + validBlue},
		{"bridge", gcBridge + validBlue},
	} {
		h.asPlugin(t, p.name, "GC", p.conf).OK(t)
	}
	if left := h.leases(); len(left) != 2 {
		t.Errorf("leases %q, want blue's and web's", left)
	}
	if rules := h.Run(t, "nft", "list", "ruleset").OK(t).Stdout; !strings.Contains(rules, "8080") || strings.Contains(rules, "8081") {
		t.Errorf("want blue's port and not red's:\n%s", rules)
	}
	if records := h.files("/run/nsinit/cni"); strings.Contains(strings.Join(records, " "), "/red@") {
		t.Errorf("red's records are left: %q", records)
	}
	h.cni(t, "check", "--container-id", "blue", "lan", "blue").OK(t)
	h.nsinit(t, "network", "check", web.id).OK(t)
}

// TestCNICollectsLeases serves the GC that a plugin of another maker hands on to its address plugin.
func TestCNICollectsLeases(t *testing.T) {
	t.Parallel()
	h := newCNIHost(t)
	for _, id := range []string{"blue", "red"} {
		h.asPlugin(t, "host-local", "ADD", gcBridge+"}", "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/blue", "CNI_IFNAME=eth0").OK(t)
	}
	h.asPlugin(t, "host-local", "GC", gcBridge+validBlue).OK(t)
	if left := h.leases(); len(left) != 1 || left[0] != "10.77.0.2" {
		t.Errorf("leases %q, want blue's", left)
	}
}

// TestCNIGCNeedsTheList keeps all where the runtime doesn't say what is valid. The specification first called the key
// cni.dev/attachments.
func TestCNIGCNeedsTheList(t *testing.T) {
	t.Parallel()
	h := newCNIHost(t)
	h.cni(t, "add", "--container-id", "blue", "lan", "blue").OK(t)
	if r := h.asPlugin(t, "bridge", "GC", gcBridge+"}"); r.Code == 0 || !strings.Contains(r.Stdout, "cni.dev/valid-attachments") {
		t.Errorf("exit code %d: %s", r.Code, r.Stdout)
	}
	h.asPlugin(t, "bridge", "GC", gcBridge+strings.Replace(validBlue, "valid-attachments", "attachments", 1)).OK(t)
	h.cni(t, "check", "--container-id", "blue", "lan", "blue").OK(t)
	// disableGC: nobody is called.
	write(t, filepath.Join(h.dir, "lan.conflist"), strings.Replace(cniLan, `"name"`, `"disableGC": true, "name"`, 1))
	h.Run(t, "ip", "netns", "del", "blue").OK(t)
	h.cni(t, "gc", "lan").OK(t)
	if left := h.leases(); len(left) != 1 {
		t.Errorf("leases %q: disableGC is passed over", left)
	}
	h.cni(t, "del", "--container-id", "blue", "lan", "blue").OK(t)
	h.named(t, "blue")
	h.nothingLeft(t)
}

// TestCNIStatus has each plugin say what would keep an ADD from working, and none of what only an ADD can know.
func TestCNIStatus(t *testing.T) {
	t.Parallel()
	h := newCNIHost(t)
	h.Outside(t)
	const pool = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}`
	for name, c := range map[string]struct{ plugin, says string }{
		"good":               {`"type": "bridge", ` + pool, ""},
		"good policy":        {`"type": "portmap", "capabilities": {"portMappings": true}`, ""},
		"ranges of an ADD":   {`"type": "bridge", "capabilities": {"ipRanges": true}, "ipam": {"type": "host-local"}`, ""},
		"device of an ADD":   {`"type": "host-device", "capabilities": {"deviceID": true}`, ""},
		"link in container":  {`"type": "vlan", "master": "eth7", "linkInContainer": true, "vlanId": 5, ` + pool, ""},
		"unknown key":        {`"type": "bridge", "birdge": "x", ` + pool, `"code": 7`},
		"value":              {`"type": "macvlan", "mode": "l9", ` + pool, `"code": 7`},
		"policy's key":       {`"type": "portmap", "snatt": true`, `"code": 7`},
		"policy's value":     {`"type": "firewall", "ingressPolicy": "closed"`, `"code": 7`},
		"no addresses":       {`"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.78.0.0/30", "rangeStart": "10.78.0.1", "rangeEnd": "10.78.0.1", "gateway": "10.78.0.1"}]]}`, `"code": 50`},
		"no master":          {`"type": "macvlan", "master": "eth7", ` + pool, `"code": 50`},
		"no device":          {`"type": "host-device", "device": "eth7"`, `"code": 50`},
		"no ipam plugin":     {`"type": "bridge", "ipam": {"type": "calico-ipam"}`, "calico-ipam"},
		"a host-local alone": {`"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "nonsense"}]]}`, `"code": 7`},
	} {
		kind := strings.Split(c.plugin, `"`)[3]
		r := h.asPlugin(t, kind, "STATUS", `{"cniVersion": "1.1.0", "name": "lan", `+c.plugin+`}`)
		if (r.Code == 0) != (c.says == "") || !strings.Contains(r.Stdout, c.says) {
			t.Errorf("%s: exit code %d: %s%s; want %s", name, r.Code, r.Stdout, r.Stderr, c.says)
		}
	}
}

// TestCNIRoot keeps the records of a plugin that nsinit cni calls where --root says, also when it is nsinit behind a link.
func TestCNIRoot(t *testing.T) {
	t.Parallel()
	h := newCNIHost(t)
	h.nsinit(t, "cni", "install", filepath.Join(h.dir, "links")).OK(t)
	for _, dir := range []string{h.dir, filepath.Join(h.dir, "links")} {
		flags := []string{"--root", "/run/other", "--network-config-dir", h.dir, "--plugin-dir", dir, "lan", "blue"}
		h.nsinit(t, append([]string{"cni", "add"}, flags...)...).OK(t)
		if here, there := h.files("/run/nsinit/cni"), h.files("/run/other/cni"); len(here) > 0 || len(there) == 0 {
			t.Errorf("%s: records in /run/nsinit: %q, in /run/other: %q", dir, here, there)
		}
		h.nsinit(t, append([]string{"cni", "check"}, flags...)...).OK(t)
		h.nsinit(t, append([]string{"cni", "del"}, flags...)...).OK(t)
		if there := h.files("/run/other/cni"); len(there) > 0 {
			t.Errorf("%s: left: %q", dir, there)
		}
	}
	h.nsinit(t, "--root", "/run/other", "gc", "--all").OK(t)
	if links := h.Run(t, "ip", "-br", "link").OK(t).Stdout; strings.Contains(links, "lan0") {
		t.Errorf("gc --all leaves %s", links)
	}
}
