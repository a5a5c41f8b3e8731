package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/plugin"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// serve is one call of a plugin in folders of its own.
func serve(t *testing.T, env map[string]string, stdin string) (code int, answer map[string]any) {
	t.Helper()
	dir := t.TempDir()
	p := plugin.Plugin{Root: filepath.Join(dir, "run"), DataDir: filepath.Join(dir, "lib"), Name: "bridge", Warn: func(string) {}}
	var out bytes.Buffer
	code = p.Serve(context.Background(), func(name string) string { return env[name] }, strings.NewReader(stdin), &out)
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
			t.Fatalf("%v in %s", err, out.Bytes())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run", "cni", "*")); len(left) > 0 {
		t.Errorf("a refused call leaves a record: %s", left)
	}
	return code, answer
}

// A bad call is answered with the specification's code and a message that says what is bad.
func TestBadCalls(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/there-is-none", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
	}
	const conf = `{"cniVersion": "1.0.0", "name": "lan", "type": "bridge"}`
	notNamespace := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notNamespace, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env   map[string]string // changes
		stdin string            // "" = conf
		code  float64
		says  string
	}{
		"command":           {env: map[string]string{"CNI_COMMAND": "FROB"}, code: 4, says: `unknown CNI_COMMAND: "FROB"`},
		"all env missing":   {env: map[string]string{"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}, code: 4, says: "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"},
		"netns missing":     {env: map[string]string{"CNI_NETNS": ""}, code: 4, says: "[CNI_NETNS] missing"},
		"DEL without id":    {env: map[string]string{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "", "CNI_NETNS": ""}, code: 4, says: "[CNI_CONTAINERID] missing"},
		"CHECK without if":  {env: map[string]string{"CNI_COMMAND": "CHECK", "CNI_IFNAME": ""}, code: 4, says: "[CNI_IFNAME] missing"},
		"id climbs":         {env: map[string]string{"CNI_CONTAINERID": "../../etc"}, code: 4, says: "CNI_CONTAINERID"},
		"id of a character": {env: map[string]string{"CNI_CONTAINERID": "a/b"}, code: 4, says: "CNI_CONTAINERID"},
		"id too long":       {env: map[string]string{"CNI_CONTAINERID": strings.Repeat("x", 201)}, code: 4, says: "at most 200"},
		"ifname too long":   {env: map[string]string{"CNI_IFNAME": "sixteen-bytes-xx"}, code: 4, says: "CNI_IFNAME"},
		"ifname with slash": {env: map[string]string{"CNI_IFNAME": "a/b"}, code: 4, says: "CNI_IFNAME"},
		"args":              {env: map[string]string{"CNI_ARGS": "IP"}, code: 4, says: `CNI_ARGS: invalid pair "IP"`},
		"stdin empty":       {stdin: " ", code: 6, says: "stdin"},
		"JSON":              {stdin: `{"cniVersion": `, code: 6, says: "stdin"},
		"JSON of a kind":    {stdin: `[]`, code: 6, says: "stdin"},
		"version too new":   {stdin: `{"cniVersion": "9.0.0", "name": "lan", "type": "bridge"}`, code: 1, says: "incompatible CNI versions"},
		"version too old":   {stdin: `{"cniVersion": "0.2.0", "name": "lan", "type": "bridge"}`, code: 1, says: "incompatible CNI versions"},
		"no version":        {stdin: `{"name": "lan", "type": "bridge"}`, code: 1, says: "incompatible CNI versions"},
		"CHECK too early":   {env: map[string]string{"CNI_COMMAND": "CHECK"}, stdin: `{"cniVersion": "0.3.1", "name": "lan", "type": "bridge"}`, code: 1, says: "does not allow CHECK"},
		"GC too early":      {env: map[string]string{"CNI_COMMAND": "GC"}, code: 1, says: "does not allow GC"},
		"STATUS too early":  {env: map[string]string{"CNI_COMMAND": "STATUS"}, code: 1, says: "does not allow STATUS"},
		"no name":           {stdin: `{"cniVersion": "1.0.0", "type": "bridge"}`, code: 7, says: "name"},
		"name climbs":       {stdin: `{"cniVersion": "1.0.0", "name": "../x", "type": "bridge"}`, code: 7, says: "name"},
		"no type":           {stdin: `{"cniVersion": "1.0.0", "name": "lan"}`, code: 7, says: "type"},
		"unknown type":      {stdin: `{"cniVersion": "1.0.0", "name": "lan", "type": "calico"}`, code: 7, says: `"calico"`},
		"ours, no plugin":   {stdin: `{"cniVersion": "1.0.0", "name": "lan", "type": "netns"}`, code: 7, says: `"netns"`},
		"unknown key":       {stdin: `{"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "birdge": "x"}`, code: 7, says: "birdge"},
		"no prevResult":     {stdin: `{"cniVersion": "1.0.0", "name": "lan", "type": "portmap"}`, code: 7, says: "must be called as a chained plugin"},
		"bad prevResult":    {stdin: `{"cniVersion": "1.0.0", "name": "lan", "type": "portmap", "prevResult": {"ips": [{"interface": 3, "address": "10.0.0.1/8"}]}}`, code: 6, says: "prevResult"},
		"netns gone":        {code: 8, says: "/run/netns/there-is-none"},
		"netns relative":    {env: map[string]string{"CNI_NETNS": "netns/x"}, code: 8, says: "absolute"},
		"netns a file":      {env: map[string]string{"CNI_NETNS": notNamespace}, code: 8, says: "not a namespace"},
		"netns a mount's":   {env: map[string]string{"CNI_NETNS": "/proc/self/ns/mnt"}, code: 8, says: "mount namespace"},
		"netns ours":        {env: map[string]string{"CNI_NETNS": "/proc/self/ns/net"}, code: 8, says: "the plugin itself"},
		"DEL in ours":       {env: map[string]string{"CNI_COMMAND": "DEL", "CNI_NETNS": "/proc/self/ns/net"}, code: 8, says: "the plugin itself"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := maps.Clone(good)
			maps.Copy(env, c.env)
			stdin := c.stdin
			if stdin == "" {
				stdin = conf
			}
			code, answer := serve(t, env, stdin)
			said, _ := answer["msg"].(string)
			if code != 1 || answer["code"] != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit code %d, %v; want 1, code %v and %q", code, answer, c.code, c.says)
			}
			if version, _ := answer["cniVersion"].(string); version == "" {
				t.Error("no cniVersion")
			}
			if strings.Contains(said, "\n") {
				t.Errorf("more than one line: %q", said)
			}
		})
	}
}

// VERSION needs nothing, and DEL of what never was isn't an error.
func TestCallsWithoutAnything(t *testing.T) {
	t.Parallel()
	code, answer := serve(t, map[string]string{"CNI_COMMAND": "VERSION"}, "")
	if list, _ := answer["supportedVersions"].([]any); code != 0 || !slices.Contains(list, any("1.1.0")) {
		t.Errorf("VERSION: exit code %d, %v", code, answer)
	}
	for _, kind := range plugin.Types() {
		env := map[string]string{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/there-is-none"}
		code, answer := serve(t, env, `{"cniVersion": "1.0.0", "name": "lan", "type": "`+kind+`"}`)
		if code != 0 || answer != nil {
			t.Errorf("DEL of %s: exit code %d, %v", kind, code, answer)
		}
	}
}

// Types holds all that is there, so that cni install forgets none.
func TestTypes(t *testing.T) {
	t.Parallel()
	for _, kind := range plugin.Types() {
		if !plugin.Has(kind) {
			t.Errorf("%s is no plugin", kind)
		}
		if chain.PolicyOf(kind, policy.Options{}) == nil && !slices.Contains(netsetup.Strategies(), kind) && kind != "host-local" && kind != "static" {
			t.Errorf("%s is nothing", kind)
		}
	}
	for _, kind := range netsetup.Strategies() {
		if plugin.Has(kind) != slices.Contains(plugin.Types(), kind) {
			t.Errorf("%s: Has and Types disagree", kind)
		}
	}
}
