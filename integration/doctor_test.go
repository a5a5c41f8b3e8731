package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

type finding struct {
	Check, Says, Remedy string
	Problem             bool
}

// The doctor finds each thing that is put in the way, with its remedy, and changes nothing.
func TestDoctor(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Dirty()
	dir := t.TempDir()
	look := func(code int) []finding {
		t.Helper()
		return netsetuptest.Decode[[]finding](t, m.nsinit(t, "doctor", "--json", "--network-config-dir", dir).Want(t, code))
	}
	before := m.Snapshot(t)
	for _, f := range look(0) {
		if f.Problem || f.Says == "" || f.Check == "" {
			t.Errorf("a fresh host: %+v", f)
		}
	}
	if text := m.nsinit(t, "doctor", "--network-config-dir", dir).OK(t).Stdout; !strings.Contains(text, "kernel") || strings.Contains(text, "\x1b") {
		t.Errorf("not a plain table: %s", text)
	}
	if d := netsetuptest.Diff(before, m.Snapshot(t)); d != "" {
		t.Errorf("the doctor changed something:\n%s", d)
	}
	write(t, dir+"/x.conflist", `{"cniVersion": "1.1.0", "name": "x", "plugins": [{"type": "bridge", "mtu": "big"}]}`)
	m.Run(t, "nft", "add table inet theirs; add chain inet theirs forwarding { type filter hook forward priority 0; policy drop; }").OK(t)
	m.detached(t, "dead", "--network", "bridge", "--", "true")
	netsetuptest.Poll(t, func() error {
		if s := netsetuptest.Decode[state](t, m.nsinit(t, "state", "dead").OK(t)); s.Status != "stopped" {
			return fmt.Errorf("%s", s.Status)
		}
		return nil
	})
	found := look(1)
	for check, want := range map[string]struct{ says, remedy string }{
		"firewall": {"table inet theirs", "nft insert rule inet theirs forwarding iifname nsinit0 accept"},
		"networks": {"x.conflist", "correct the file"},
		"records":  {"container dead", "nsinit delete dead"},
	} {
		ok := false
		for _, f := range found {
			ok = ok || f.Problem && f.Check == check && strings.Contains(f.Says, want.says) && strings.Contains(f.Remedy, want.remedy)
		}
		if !ok {
			t.Errorf("%s: not found: %+v", check, found)
		}
	}
	doctorSeesPlugins(t, m)
	// What it advises helps.
	m.Run(t, "sh", "-c", "nft insert rule inet theirs forwarding iifname nsinit0 accept && nft insert rule inet theirs forwarding oifname nsinit0 accept").OK(t)
	m.nsinit(t, "delete", "dead").OK(t)
	if err := os.Remove(dir + "/x.conflist"); err != nil {
		t.Fatal(err)
	}
	look(0)
}

// doctorSeesPlugins has it look where run would: in the folders of the flag, else of CNI_PATH.
func doctorSeesPlugins(t *testing.T, m *machine) {
	t.Helper()
	one, two := t.TempDir(), t.TempDir()
	write(t, one+"/calico", "")
	for _, flags := range [][]string{nil, {"--plugin-dir", one, "--plugin-dir", two}} {
		cmd := m.command(append([]string{"doctor", "--json"}, flags...)...)
		if flags == nil {
			cmd.Env = append(cmd.Env, "CNI_PATH="+one+":"+two)
		}
		var said []string
		for _, f := range netsetuptest.Decode[[]finding](t, m.RunCmd(t, cmd).Want(t, 1)) {
			if f.Check == "plugins" {
				said = append(said, f.Says)
			}
		}
		if len(said) != 2 || !strings.HasPrefix(said[0], "1 in "+one) || !strings.HasPrefix(said[1], "none in "+two) {
			t.Errorf("%q: plugins: %q", flags, said)
		}
	}
}
