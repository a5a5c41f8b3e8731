package differential

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
)

// lacking says which of a case's needs this kernel doesn't have.
func (tc *testCase) lacking() string {
	for _, need := range tc.needs {
		if err := able(need); err != nil {
			return fmt.Sprintf("the kernel lacks %s: %v", need, err)
		}
	}
	return ""
}

// everywhere says that no kernel worth a test lacks what the case needs.
func (tc *testCase) everywhere() bool {
	return !slices.ContainsFunc(tc.needs, func(need string) bool { return need != "macvlan" })
}

var ability sync.Map // need: func() error

// able tries a device type, or "filtering" for VLANs on bridges, in a namespace of its own.
func able(need string) error {
	once, _ := ability.LoadOrStore(need, sync.OnceValue(func() error {
		words := "type " + need
		switch need {
		case "filtering":
			words = "type bridge vlan_filtering 1"
		case "vlan":
			words = "link v0 type vlan id 7"
		case "ipvlan":
			words = "link v0 type ipvlan"
		case "macvlan":
			words = "link v0 type macvlan"
		case "vrf":
			words = "type vrf table 100"
		}
		out, err := exec.Command("unshare", "--net", "sh", "-ec", "ip link add v0 type veth peer v1; ip link add x "+words).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip link add %s: %s", words, strings.TrimSpace(string(out)))
		}
		return nil
	}))
	return once.(func() error)()
}
