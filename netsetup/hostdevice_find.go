package netsetup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sysfs is where the machine's devices are. The network devices in it are those of the
// namespace that it was mounted in.
const sysfs = "/sys"

// altNameMax is ALTIFNAMSIZ without the final zero byte.
const altNameMax = 127

// A wantedDevice says which device of the host is meant. The first one that is given
// counts.
type wantedDevice struct {
	name       string // or one of its other names
	hwaddr     net.HardwareAddr
	kernelPath string // a device's directory below /sys/devices
	pci        string // 0000:00:1f.6
	auxiliary  string // on the auxiliary bus, as mlx5_core.sf.4
}

func (w wantedDevice) isZero() bool {
	return w.name == "" && len(w.hwaddr) == 0 && w.kernelPath == "" && w.pci == "" && w.auxiliary == ""
}

// byID adds the device that a device plugin gave the container, which is on the PCI or
// on the auxiliary bus.
func (w wantedDevice) byID(sys, id string) (wantedDevice, error) {
	if id == "" {
		return w, nil
	}
	if err := checkBusID(id); err != nil {
		return w, faultf("deviceID", id, "%w", err)
	}
	if _, err := os.Stat(filepath.Join(sys, "bus/pci/devices", id)); err == nil {
		w.pci = id
		return w, nil
	}
	if _, err := os.Stat(filepath.Join(sys, "bus/auxiliary/devices", id)); err == nil {
		w.pci, w.auxiliary = "", id
		return w, nil
	}
	return w, faultf("deviceID", id, "neither a PCI nor an auxiliary device of this host")
}

// checkBusID refuses what is more than a file's name.
func checkBusID(id string) error {
	if id == "." || id == ".." || len(id) > unix.NAME_MAX {
		return errors.New("no device's address; as 0000:00:1f.6")
	}
	return checkRunes(id, "/")
}

// userspace tells whether the device has a driver that leaves it to a program (DPDK): it
// has no network interface then.
func (w wantedDevice) userspace(sys string) (bool, error) {
	if w.pci == "" {
		return false, nil
	}
	driver, err := os.Readlink(filepath.Join(sys, "bus/pci/devices", w.pci, "driver"))
	if err != nil {
		return false, fmt.Errorf("PCI device %s: driver: %w", w.pci, errors.Unwrap(err))
	}
	switch filepath.Base(driver) {
	case "vfio-pci", "uio_pci_generic", "igb_uio":
		return true, nil
	}
	return false, nil
}

// find looks the device up on the host.
func (h *Host) find(sys string, w wantedDevice) (link, error) {
	switch {
	case w.name != "":
		return h.c.linkByAnyName(w.name)
	case len(w.hwaddr) > 0:
		l, err := h.findLink(func(l link) bool { return l.mac.String() == w.hwaddr.String() })
		if err != nil {
			return l, fmt.Errorf("hwaddr %s: %w", w.hwaddr, err)
		}
		return l, nil
	case w.kernelPath != "":
		return h.firstBelow(w.kernelPath)
	case w.pci != "":
		dir := filepath.Join(sys, "bus/pci/devices", w.pci)
		if _, err := os.Lstat(filepath.Join(dir, "net")); err != nil {
			// The interface of a virtio device is one level deeper.
			virtio, _ := filepath.Glob(filepath.Join(dir, "virtio*"))
			if len(virtio) == 0 {
				return link{}, fmt.Errorf("PCI device %s: has no network interface", w.pci)
			}
			dir = virtio[0]
		}
		return h.firstBelow(dir)
	}
	return h.firstBelow(filepath.Join(sys, "bus/auxiliary/devices", w.auxiliary))
}

// firstBelow returns the first network interface of the device with the directory dir.
func (h *Host) firstBelow(dir string) (link, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "net"))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return link{}, fmt.Errorf("%s: has no network interface", dir)
	}
	if err != nil {
		return link{}, fmt.Errorf("network interfaces: %w", err)
	}
	return h.c.linkByName(entries[0].Name())
}

// linkByAnyName asks for a device by its name or one of its other names.
func (c *rtnl) linkByAnyName(name string) (link, error) {
	if len(name) <= maxIfName {
		return c.linkByName(name) // the short ones of its other names as well
	}
	l, err := c.link(0, nl.NewRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return l, fmt.Errorf("%s: look up: %w", name, err)
	}
	return l, nil
}

var errNoLink = errors.New("no such device")

// findLink returns the first device that is meant.
func (h *Host) findLink(meant func(link) bool) (link, error) {
	msgs, err := h.c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, ifinfo(0, 0, 0),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err != nil {
		return link{}, fmt.Errorf("list devices: %w", err)
	}
	for _, m := range msgs {
		if l := parseLink(m); meant(l) {
			return l, nil
		}
	}
	return link{}, errNoLink
}

// checkDeviceName says why name can't be a device of the host: by its name or one of
// its other names, which may be longer.
func checkDeviceName(name string) error {
	if len(name) <= maxIfName {
		return CheckIfName(name)
	}
	if len(name) > altNameMax {
		return fmt.Errorf("%d bytes; a device's name has at most %d", len(name), altNameMax)
	}
	return checkRunes(name, "/:%")
}

// checkKernelPath wants a device's directory.
func checkKernelPath(path string) error {
	const below = "/sys/devices/"
	if !strings.HasPrefix(path, below) || filepath.Clean(path) != strings.TrimSuffix(path, "/") {
		return fmt.Errorf("not below %s; as %spci0000:00/0000:00:1f.6", below, below)
	}
	return nil
}
