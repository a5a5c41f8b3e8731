package netsetup

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// planPorts plans with pools of bridgeNet and further keys.
func planPorts(t *testing.T, keys string) Plan {
	t.Helper()
	return planOf(t, `{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, `+keys+`, `+pools+`}`)
}

func (c testContainer) reaches(to string) bool {
	return c.Ping(netip.MustParseAddr(to), 56, 300*time.Millisecond) == nil
}

// TestBridgeIsolation has two isolated ports, which reach the host and a third one, and
// not each other.
func TestBridgeIsolation(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	var all []testContainer
	var last Attachment
	for i, keys := range []string{`"portIsolation": true`, `"portIsolation": true, "hairpinMode": true`, `"portIsolation": false`} {
		c := newContainer(t, host, fmt.Sprintf("c%d", i))
		a := c.start(t, host, planPorts(t, keys), lanAddrs(i+2))
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
		all = append(all, c)
		if i == 1 {
			last = a
		}
	}
	for _, to := range []string{"10.1.0.1", "fd00:1::1", "10.1.0.4", "fd00:1::4"} {
		if !all[0].reaches(to) {
			t.Errorf("an isolated port doesn't reach %s", to)
		}
	}
	for _, to := range []string{"10.1.0.3", "fd00:1::3"} {
		if all[0].reaches(to) {
			t.Errorf("an isolated port reaches another one, %s", to)
		}
	}
	options := host.Run(t, "bridge", "-d", "link", "show", "dev", last.HostIf).OK(t).Stdout
	if !strings.Contains(options, "hairpin on") || !strings.Contains(options, "isolated on") {
		t.Errorf("port options:\n%s", options)
	}
	host.Run(t, "ip", "link", "set", last.HostIf, "type", "bridge_slave", "isolated", "off", "hairpin", "off").OK(t)
	wantEqual(t, "differences", fmt.Sprint(all[1].check(t, host, last)), fmt.Sprintf("[%s: hairpin: want on, the kernel has off %s: isolated: want on, the kernel has off]", last.HostIf, last.HostIf))
}

// TestBridgeInterfaceDown has an interface that somebody inside is to bring up.
func TestBridgeInterfaceDown(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	a := c.start(t, host, planOf(t, `{"type": "bridge", "bridge": "br0", "disableContainerInterface": true}`), nil)
	if l := c.Link(t, "eth0"); l.Up() {
		t.Errorf("flags %v", l.Flags)
	}
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	c.Run(t, "ip", "link", "set", "eth0", "up").OK(t)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	host.Run(t, "ip", "link", "set", a.HostIf, "down").OK(t)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), fmt.Sprintf("[%s: state: want up, the kernel has down]", a.HostIf))
}

// TestVLANEntries compares what a port is asked to be in with what the kernel holds then.
func TestVLANEntries(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ keys, entries, held string }{
		{`"vlan": 0`, "[]", ""},
		{`"vlan": 100`, "[100 pvid untagged]", "100 pvid untagged"},
		{`"vlan": 100, "preserveDefaultVlan": true`, "[100 pvid untagged]", "1 untagged, 100 pvid untagged"},
		{`"vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 12}, {"id": 11}, {"id": 13}]`, "[7 10-13 1 pvid untagged]", "1 pvid untagged, 7, 10-13"},
		{`"vlan": 5, "vlanTrunk": [{"minID": 4, "maxID": 6, "id": 9}]`, "[5 pvid untagged 4-6 9]", "4-6, 9"},
		{`"vlanTrunk": []`, "[]", ""},
	} {
		p := planOf(t, `{"type": "bridge", `+test.keys+`}`)
		port := p.port()
		wantEqual(t, test.keys, fmt.Sprint(port.entries()), test.entries)
		wantEqual(t, test.keys, vlanList(port.held(1)), test.held)
	}
}

// needFiltering skips where the kernel has no bridge VLAN filtering, by its own answer.
func needFiltering(t *testing.T, host *netsetuptest.Host) {
	t.Helper()
	r := host.Run(t, "ip", "link", "add", "probe0", "type", "bridge", "vlan_filtering", "1")
	if r.Code != 0 {
		t.Skipf("the kernel has no VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING): %s", r.Stderr)
	}
	host.Run(t, "ip", "link", "del", "probe0").OK(t)
}

// TestBridgeWithoutFiltering says what is missing.
func TestBridgeWithoutFiltering(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c := newContainer(t, host, "web")
	host.Run(t, "ip", "link", "add", "br0", "up", "type", "bridge").OK(t)
	_, err := c.attach(host, planOf(t, `{"type": "bridge", "bridge": "br0", "vlan": 5}`), nil, noRecord)
	wantError(t, err, "br0: VLAN filtering is off", "ip link set br0 type bridge vlan_filtering 1")
	_, err = c.attach(host, planOf(t, `{"type": "bridge", "bridge": "br1", "vlan": 5}`), nil, noRecord)
	if err != nil {
		wantError(t, err, "CONFIG_BRIDGE_VLAN_FILTERING")
	}
}

// TestBridgeVLAN has containers in VLANs of one bridge, each with the gateway's device
// of its own.
func TestBridgeVLAN(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	needFiltering(t, host)
	one := `{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "vlan": 100, ` + pools + `}`
	two := `{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "vlan": 200, "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}`
	var all []testContainer
	var attached []Attachment
	var records []Object
	for i, of := range []struct {
		plugin string
		addrs  []netip.Prefix
	}{{one, lanAddrs(2)}, {one, lanAddrs(3)}, {two, prefixes("10.2.0.2/24")}} {
		c := newContainer(t, host, fmt.Sprintf("c%d", i))
		a, err := c.attach(host, planOf(t, of.plugin), of.addrs, func(o Object) error { records = append(records, o); return nil })
		if err == nil {
			err = c.configure(a)
		}
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
		all, attached = append(all, c), append(attached, a)
	}
	wantEqual(t, "gateway's device", attached[0].Port.GatewayIf, "br0.100")
	wantEqual(t, "records", fmt.Sprint(records), "[{bridge lan br0    } {link lan br0.100    } {link lan br0.200    }]")
	wantUsable(t, all[0].Node, "eth0", "10.1.0.1", "fd00:1::1", "10.1.0.3", "fd00:1::3")
	wantUsable(t, all[2].Node, "eth0", "10.2.0.1")
	all[2].Run(t, "ip", "addr", "add", "10.1.0.9/24", "dev", "eth0").OK(t)
	if all[2].reaches("10.1.0.3") {
		t.Error("VLAN 200 reaches VLAN 100")
	}
	host.Run(t, "bridge", "vlan", "add", "dev", attached[0].HostIf, "vid", "7").OK(t)
	wantEqual(t, "differences", fmt.Sprint(all[0].check(t, host, attached[0])), fmt.Sprintf("[%s: VLANs: want 100 pvid untagged, the kernel has 7, 100 pvid untagged]", attached[0].HostIf))
	for _, c := range all {
		c.Run(t, "ip", "link", "del", "eth0").OK(t)
	}
	if err := onHost(host, func(h *Host) error { return Undo(t.Context(), h, records[0]) }); err != nil {
		t.Error(err)
	}
	wantEqual(t, "devices left", len(host.Links(t)), 1)
}

// TestBridgeVLANRace has several starters make the bridge, and the gateway's device, at once.
func TestBridgeVLANRace(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	needFiltering(t, host)
	p := planOf(t, `{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "vlan": 100, `+pools+`}`)
	const starters = 8
	var all []testContainer
	for i := range starters {
		all = append(all, newContainer(t, host, fmt.Sprintf("c%d", i)))
	}
	attached := make([]Attachment, starters)
	for _, err := range together(starters, func(i int) (err error) {
		attached[i], err = all[i].attach(host, p, lanAddrs(i+2), noRecord)
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range all {
		if err := c.configure(attached[i]); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "differences", fmt.Sprint(c.check(t, host, attached[i])), "[]")
	}
	wantUsable(t, all[0].Node, "eth0", "10.1.0.1", "fd00:1::1", "10.1.0.9")
}

// TestBridgeTrunk has tagged frames of the trunk's VLANs pass, and no others.
func TestBridgeTrunk(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	needFiltering(t, host)
	trunk := planOf(t, `{"type": "bridge", "bridge": "br0", "vlanTrunk": [{"minID": 100, "maxID": 110}]}`)
	router, access := newContainer(t, host, "router"), newContainer(t, host, "access")
	a := router.start(t, host, trunk, nil)
	wantEqual(t, "differences", fmt.Sprint(router.check(t, host, a)), "[]")
	for _, vid := range []string{"105", "120"} {
		if r := router.Run(t, "ip", "link", "add", "link", "eth0", "name", "v"+vid, "up", "type", "vlan", "id", vid); r.Code != 0 {
			t.Skipf("the kernel has no vlan devices: %s", r.Stderr)
		}
		router.Run(t, "ip", "addr", "add", "10.1."+vid+".1/24", "dev", "v"+vid).OK(t)
	}
	access.start(t, host, planOf(t, `{"type": "bridge", "bridge": "br0", "vlan": 105, "ipam": {"type": "static", "addresses": [{"address": "10.1.105.2/24"}]}}`), prefixes("10.1.105.2/24"))
	wantUsable(t, access.Node, "eth0", "10.1.105.1")
	other := newContainer(t, host, "other")
	other.start(t, host, planOf(t, `{"type": "bridge", "bridge": "br0", "vlan": 120, "ipam": {"type": "static", "addresses": [{"address": "10.1.120.2/24"}]}}`), prefixes("10.1.120.2/24"))
	if other.reaches("10.1.120.1") {
		t.Error("VLAN 120 passes a trunk of 100 to 110")
	}
}
