package netsetup

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// fakeSysfs is a machine with devices of all kinds, whose interface is eth9.
func fakeSysfs(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	for _, dir := range []string{
		"bus/pci/devices/0000:00:01.0/net/eth9", "bus/pci/devices/0000:00:02.0/virtio3/net/eth9",
		"bus/pci/devices/0000:00:03.0", "bus/auxiliary/devices/mlx5_core.sf.4/net/eth9", "bus/pci/drivers/vfio-pci", "bus/pci/drivers/e1000",
	} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for device, driver := range map[string]string{"0000:00:01.0": "e1000", "0000:00:03.0": "vfio-pci"} {
		if err := os.Symlink("../../drivers/"+driver, filepath.Join(sys, "bus/pci/devices", device, "driver")); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestFindDevice(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	const long = "office-uplink-with-a-long-name"
	host.Run(t, "sh", "-e", "-c", "ip link add eth9 address 02:00:00:00:00:09 type veth peer name far9; ip link property add dev eth9 altname "+long).OK(t)
	sys := fakeSysfs(t)
	for _, test := range []struct {
		want wantedDevice
		id   string
		err  string
	}{
		{want: wantedDevice{name: "eth9"}},
		{want: wantedDevice{name: long}},
		{want: wantedDevice{name: "eth8"}, err: "eth8: look up: no such device"},
		{want: wantedDevice{hwaddr: []byte{2, 0, 0, 0, 0, 9}}},
		{want: wantedDevice{hwaddr: []byte{2, 0, 0, 0, 0, 8}}, err: "hwaddr 02:00:00:00:00:08: no such device"},
		{want: wantedDevice{kernelPath: sys + "/bus/pci/devices/0000:00:01.0"}},
		{want: wantedDevice{pci: "0000:00:01.0"}},
		{want: wantedDevice{pci: "0000:00:02.0"}},
		{want: wantedDevice{pci: "0000:00:03.0"}, err: "has no network interface"},
		{want: wantedDevice{pci: "0000:00:04.0"}, err: "has no network interface"},
		{id: "0000:00:02.0"},
		{id: "mlx5_core.sf.4", want: wantedDevice{pci: "0000:00:03.0"}},
		{id: "0000:00:04.0", err: "neither a PCI nor an auxiliary device"},
		{id: "../devices", err: "not allowed"},
		{id: "0000:00:03.0", want: wantedDevice{name: "eth9", pci: "0000:00:01.0"}},
	} {
		w, err := test.want.byID(sys, test.id)
		var l link
		if err == nil {
			err = onHost(host, func(h *Host) (err error) {
				l, err = h.find(sys, w)
				return err
			})
		}
		switch {
		case test.err != "":
			wantError(t, err, test.err)
		case err != nil || l.name != "eth9":
			t.Errorf("%+v, id %q: %q, %v", test.want, test.id, l.name, err)
		}
	}
	for pci, want := range map[string]bool{"": false, "0000:00:01.0": false, "0000:00:03.0": true} {
		got, err := wantedDevice{pci: pci}.userspace(sys)
		if got != want || err != nil {
			t.Errorf("%q is driven by a program: %v, %v", pci, got, err)
		}
	}
	_, err := wantedDevice{pci: "0000:00:02.0"}.userspace(sys)
	wantError(t, err, "PCI device 0000:00:02.0: driver: ")
}

func TestHostDevicePlan(t *testing.T) {
	t.Parallel()
	for plugin, faults := range map[string][]string{
		`{"type": "host-device"}`: {"no device given"},
		`{"type": "host-device", "device": "a/b", "hwaddr": "02", "kernelpath": "/sys/devices/../x", "pciBusID": "..", "x": 1}`: {
			`device: "a/b"`, `hwaddr: "02": not a hardware address`, `kernelpath: "/sys/devices/../x": not below /sys/devices/`, `pciBusID: ".."`, "x: unknown key",
		},
		`{"type": "host-device", "device": "eth9", "ipMasq": true}`: {"ipMasq: a device of the host leads out by itself"},
	} {
		n := networkOf(plugin)
		_, err := hostDevice{}.Plan(Request{Strategy: "host-device", IfName: "eth0", Network: n})
		wantError(t, err, faults...)
	}
	p := planOf(t, `{"type": "host-device", "dpdkMode": true, "device": "eth9", "capabilities": {"deviceID": true}}`)
	var l lent
	a, err := hostDevice{}.Attach(t.Context(), nil, nil, p, prefixes("10.1.0.2/24"), nil, l.record)
	if err != nil || !a.Configured || a.MAC != "" || len(l.objects) > 0 || !slices.Equal(a.Addresses, prefixes("10.1.0.2/24")) {
		t.Errorf("DPDK: %+v, %v, %v", a, l.objects, err)
	}
}
