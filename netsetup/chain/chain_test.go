package chain

import (
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

// TestPlanFaults has the faults of all of a list's plugins told in one go.
func TestPlanFaults(t *testing.T) {
	t.Parallel()
	n := &netsetup.Network{Name: "lan", CNIVersion: "1.1.0", Source: "lan.conflist", Plugins: []netsetup.Plugin{
		{Type: "bridge", Raw: []byte(`{"type": "bridge", "mtu": 5, "isGatway": true}`)},
		{Type: "nothing-that-is", Raw: []byte(`{"type": "nothing-that-is"}`)},
	}}
	plans, err := Plan([]netsetup.Request{{Strategy: "bridge", Network: n, Source: "--network lan"}})
	if plans != nil || err == nil {
		t.Fatalf("plans %v, error %v", plans, err)
	}
	for _, want := range []string{
		"lan.conflist: plugins[0].isGatway: unknown key; did you mean isGateway?",
		`lan.conflist: plugins[0].mtu: "5": out of range`,
		`lan.conflist: plugins[1].type: plugin "nothing-that-is": file does not exist in /opt/cni/bin`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

// TestLoopbackBehind has the type loopback as a further plugin, as some lists have it.
func TestLoopbackBehind(t *testing.T) {
	t.Parallel()
	n := &netsetup.Network{Name: "lan", CNIVersion: "1.1.0", Source: "lan.conflist", Plugins: []netsetup.Plugin{
		{Type: "bridge", Raw: []byte(`{"type": "bridge"}`)}, {Type: "loopback", Raw: []byte(`{"type": "loopback"}`)},
	}}
	plans, err := Plan([]netsetup.Request{{Strategy: "bridge", Network: n, Source: "--network lan"}})
	if err != nil || len(plans) != 1 || len(plans[0].Policies) != 1 {
		t.Errorf("%+v, %v", plans, err)
	}
}
