package netsetup

import (
	"errors"
	"fmt"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// setIPv6 writes one of a device's IPv6 settings. errors.Is(err, unix.ENOENT) if the
// device has no IPv6: the kernel was started without, or the MTU is below 1280.
func (c *rtnl) setIPv6(ifName, key, value string) error {
	return c.setDevice("ipv6", ifName, key, value)
}

// setDevice writes a device's setting.
func (c *rtnl) setDevice(family, ifName, key, value string) error {
	if err := c.writeSetting("net/"+family+"/conf/"+ifName+"/"+key, value); err != nil {
		return fmt.Errorf("set net.%s.conf.%s.%s to %s: %w", family, ifName, key, value, err)
	}
	return nil
}

func (c *rtnl) writeSetting(key, value string) error {
	fd, err := c.openSetting(key, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	gate.Change()
	_, err = unix.Write(fd, []byte(value))
	return err
}

// openSetting opens a file below /proc/sys. net there belongs to the network namespace of
// the thread that opens it, whatever is mounted where. An os.File would be taken up by the
// poller, at three more system calls.
func (c *rtnl) openSetting(key string, flags int) (int, error) {
	if c.procfs == nil {
		return openRetry(unix.AT_FDCWD, "/proc/sys/"+key, flags)
	}
	return openRetry(int(c.procfs.Fd()), "sys/"+key, flags)
}

func openRetry(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// ownRoutes keeps router advertisements from changing the device (CVE-2020-10749)
// and makes its addresses usable at once. Both must be written before the
// device has a carrier. Without IPv6 there is nothing to write.
func (c *rtnl) ownRoutes(ifName string, dad bool) error {
	err := c.setIPv6(ifName, "accept_ra", "0")
	if err == nil && !dad {
		err = c.setIPv6(ifName, "accept_dad", "0")
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// announceMAC has the kernel tell the neighbours, when the device comes up, which
// MAC address its addresses have now.
func (c *rtnl) announceMAC(ifName string) error {
	if err := c.setDevice("ipv4", ifName, "arp_notify", "1"); err != nil {
		return err
	}
	if err := c.setIPv6(ifName, "ndisc_notify", "1"); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
