package cni_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

// results are some with all that a version may have.
func results() map[string]cni.Result {
	inside := cni.Interface{Name: "eth0", MAC: "02:00:00:00:00:01", MTU: 1400, Sandbox: "/run/netns/a"}
	return map[string]cni.Result{
		"empty": {},
		"one":   {Interfaces: []cni.Interface{inside}, IPs: []cni.IP{{Interface: new(0), Address: netip.MustParsePrefix("10.1.0.2/24")}}},
		"full": {
			Interfaces: []cni.Interface{{Name: "br0", MAC: "02:00:00:00:00:02"}, {Name: "veth1"}, inside, {Name: "vf", SocketPath: "/run/s", PciID: "0000:00:01.0", Sandbox: "/run/netns/a"}},
			IPs: []cni.IP{
				{Interface: new(2), Address: netip.MustParsePrefix("10.1.0.2/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
				{Interface: new(2), Address: netip.MustParsePrefix("fd00::2/64"), Gateway: netip.MustParseAddr("fd00::1")},
				{Address: netip.MustParsePrefix("192.0.2.1/32")},
			},
			Routes: []cni.Route{
				{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: netip.MustParseAddr("10.1.0.1")},
				{Dst: netip.MustParsePrefix("fd01::/48"), MTU: 1300, AdvMSS: 1200, Priority: 7, Table: new(100), Scope: new(0)},
			},
			DNS: netsetup.DNS{Nameservers: []string{"10.1.0.1"}, Domain: "example.org", Search: []string{"example.org"}, Options: []string{"ndots:2"}},
		},
	}
}

// theirs has CNI's library read a result, and write it as version has it.
func theirs(t *testing.T, data []byte, version string) map[string]any {
	t.Helper()
	r, err := create.CreateFromBytes(data)
	if err != nil {
		t.Fatalf("CNI's library doesn't take %s: %v", data, err)
	}
	if r, err = r.GetAsVersion(version); err != nil {
		t.Fatalf("%s: as %s: %v", data, version, err)
	}
	out := decoded(t, r)
	if !cni.AtLeast(version, "1.1.0") {
		withoutNew(out)
	}
	return out
}

// withoutNew takes out what came with 1.1.0: the library has it in some conversions to versions that have no word for it.
func withoutNew(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range []string{"mtu", "socketPath", "pciID", "advmss", "priority", "table", "scope"} {
			delete(v, key)
		}
		for _, member := range v {
			withoutNew(member)
		}
	case []any:
		for _, member := range v {
			withoutNew(member)
		}
	}
}

func decoded(t *testing.T, v any) map[string]any {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if dns, _ := out["dns"].(map[string]any); len(dns) == 0 {
		delete(out, "dns") // as the library does from 1.0.0 on; {} says the same
	}
	return out
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What nsinit writes in a version is what CNI's library writes of the same result, from any version to any other.
func TestResultAsLibraryHasIt(t *testing.T) {
	t.Parallel()
	for name, r := range results() {
		for _, from := range cni.Versions() {
			ours := encoded(t, r.To(from))
			if diff := cmp.Diff(theirs(t, ours, from), decoded(t, ours)); diff != "" {
				t.Errorf("%s: as %s (-library +nsinit):\n%s", name, from, diff)
			}
			parsed, err := cni.ParseResult(ours)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, ours, err)
			}
			for _, to := range cni.Versions() {
				if diff := cmp.Diff(theirs(t, ours, to), decoded(t, parsed.To(to))); diff != "" {
					t.Errorf("%s: %s to %s (-library +nsinit):\n%s", name, from, to, diff)
				}
			}
		}
	}
}

// The versions are the library's, without those whose results have another form.
func TestVersionsAreTheLibrarys(t *testing.T) {
	t.Parallel()
	want := slices.DeleteFunc(version.All.SupportedVersions(), func(v string) bool { return v == "0.1.0" || v == "0.2.0" })
	if !slices.Equal(cni.Versions(), want) {
		t.Errorf("versions %q, the library has %q", cni.Versions(), want)
	}
	for _, a := range version.All.SupportedVersions() {
		for _, b := range version.All.SupportedVersions() {
			if want, err := version.GreaterThanOrEqualTo(a, b); err != nil || cni.AtLeast(a, b) != want {
				t.Errorf("AtLeast(%s, %s) is not %v (%v)", a, b, want, err)
			}
		}
	}
}

func TestParseResultFaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `[]`, `{"ips": [{"address": "10.1.0.300/24"}]}`, `{"ips": [{"interface": 1, "address": "10.1.0.3/24"}], "interfaces": [{"name": "a"}]}`,
		`{"ips": [{"interface": -1, "address": "10.1.0.3/24"}], "interfaces": [{"name": "a"}]}`, `{"routes": [{"dst": "default"}]}`,
	} {
		if r, err := cni.ParseResult([]byte(text)); err == nil {
			t.Errorf("%s: taken as %+v", text, r)
		}
	}
}

// The host's end is the last of the host's devices before the container's: what follows is a gateway's.
func TestResultAttachment(t *testing.T) {
	t.Parallel()
	a := results()["full"].Attachment("lan", "eth0")
	if a.Bridge != "br0" || a.HostIf != "veth1" || a.MAC != "02:00:00:00:00:01" || a.MTU != 1400 || len(a.Addresses) != 3 || len(a.Gateways) != 2 {
		t.Errorf("%+v", a)
	}
	r := results()["full"]
	r.Interfaces = append(r.Interfaces, cni.Interface{Name: "br0.7"})
	if a := r.Attachment("lan", "eth0"); a.Bridge != "br0" || a.HostIf != "veth1" {
		t.Errorf("with a gateway's device: %+v", a)
	}
	late := cni.Result{Interfaces: []cni.Interface{{Name: "eth0", Sandbox: "/run/netns/a"}, {Name: "veth1"}}}
	if a := late.Attachment("lan", "eth0"); a.HostIf != "veth1" || a.Bridge != "" {
		t.Errorf("the host's end behind: %+v", a)
	}
}
