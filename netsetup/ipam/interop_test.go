package ipam

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

// A referencePlugin is the plugins' own host-local, for a network in dir.
type referencePlugin struct{ path, dir string }

// buildReference builds host-local out of the module that go.mod names.
func buildReference(t *testing.T) *referencePlugin {
	t.Helper()
	if testing.Short() {
		t.Skip("short: the reference plugin isn't built")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command to build the reference plugin with")
	}
	p := &referencePlugin{path: filepath.Join(t.TempDir(), "host-local"), dir: t.TempDir()}
	build := exec.CommandContext(t.Context(), goTool, "build", "-o", p.path,
		"github.com/containernetworking/plugins/plugins/ipam/host-local")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv("GOMODCACHE") == "" && os.Getuid() != 0 {
			t.Skipf("the reference plugin can't be built here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	return p
}

// run runs a CNI command and returns the addresses of the result.
func (p *referencePlugin) run(t *testing.T, command, id string, ranges string) ([]string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_IFNAME=eth0",
		"CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1", "CNI_PATH=/nowhere",
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(
		`{"cniVersion":"1.0.0","name":"lan","type":"x","ipam":{"type":"host-local","dataDir":%q,"ranges":%s}}`, p.dir, ranges))
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var result struct {
		IPs []struct{ Address string }
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &result); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var ips []string
	for _, ip := range result.IPs {
		ips = append(ips, ip.Address)
	}
	return ips, nil
}

// TestReferencePlugin: host-local and nsinit take addresses of one pool in turns,
// and each gives back what it took.
func TestReferencePlugin(t *testing.T) {
	t.Parallel()
	ref := buildReference(t)
	const ranges = `[[{"subnet":"10.1.0.0/29"}],[{"subnet":"fd00:1::/64"}]]`
	plan := planOf(ref.dir, pool("10.1.0.0/29"), pool("fd00:1::/64"))
	j := &journal{t: t}
	var got []string
	for i := range 5 {
		if i%2 == 0 {
			ips, err := ref.run(t, "ADD", fmt.Sprint("theirs", i), ranges)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ips...)
			continue
		}
		addrs, _, err := Allocate(t.Context(), plan, fmt.Sprint("ours", i), j.record)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, addrs[0].String(), addrs[1].String())
	}
	want := "10.1.0.2/29 fd00:1::2/64 10.1.0.3/29 fd00:1::3/64 10.1.0.4/29 fd00:1::4/64 10.1.0.5/29 fd00:1::5/64 10.1.0.6/29 fd00:1::6/64"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if _, err := ref.run(t, "ADD", "theirs9", ranges); err == nil {
		t.Error("the reference plugin gives an address of a pool that is empty")
	}
	_, _, err := Allocate(t.Context(), plan, "ours9", j.record)
	if err == nil || !strings.Contains(err.Error(), "5 of 5 addresses are taken") {
		t.Errorf("error %v", err)
	}
	_, _, err = Allocate(t.Context(), asking(plan, "10.1.0.4"), "ours9", j.record)
	if err == nil || !strings.Contains(err.Error(), `taken by container "theirs2" (eth0)`) {
		t.Errorf("error %v", err)
	}
	t.Run("each gives back its own", func(t *testing.T) {
		if _, err := ref.run(t, "DEL", "ours1", ranges); err != nil { // by id and interface: host-local's own rule
			t.Error(err)
		}
		if slices.Contains(leaseFiles(t, ref.dir), "10.1.0.3") {
			t.Error("the reference plugin doesn't know our lease")
		}
		theirs := netsetup.Object{Kind: "lease", Network: "lan", Name: "10.1.0.2", Owner: "ours1", IfName: "eth0", Dir: ref.dir}
		if err := Undo(theirs); err != nil || !slices.Contains(leaseFiles(t, ref.dir), "10.1.0.2") {
			t.Errorf("undoing another's lease: %v, %v", err, leaseFiles(t, ref.dir))
		}
		for _, o := range j.objects {
			if err := Undo(o); err != nil {
				t.Error(err)
			}
		}
		for _, i := range []int{0, 2, 4} {
			if _, err := ref.run(t, "DEL", fmt.Sprint("theirs", i), ranges); err != nil {
				t.Error(err)
			}
		}
		if left := leaseFiles(t, ref.dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}
