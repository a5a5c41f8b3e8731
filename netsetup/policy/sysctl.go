package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// A sysctl is a path below /proc/sys/net. The kernel looks it up in the network
// namespace of the thread that opens it, whatever was mounted where.
type sysctl string

const sysctlRoot = "/proc/sys/net/"

func forwarding4(device string) sysctl { return sysctl("ipv4/conf/" + device + "/forwarding") }
func forwarding6(device string) sysctl { return sysctl("ipv6/conf/" + device + "/forwarding") }

// force6 is forwarding for packets that come in by one device, without what
// forwarding6 means besides (router or host, advertisements accepted). Linux 6.17,
// commit f24987ef6959.
func force6(device string) sysctl     { return sysctl("ipv6/conf/" + device + "/force_forwarding") }
func acceptRA(device string) sysctl   { return sysctl("ipv6/conf/" + device + "/accept_ra") }
func routeLocal(device string) sysctl { return sysctl("ipv4/conf/" + device + "/route_localnet") }
func (s sysctl) path() string         { return sysctlRoot + string(s) }
func (s sysctl) is(value string) bool { got, err := s.read(); return err == nil && got == value }
func (s sysctl) missing() bool        { _, err := s.read(); return errors.Is(err, fs.ErrNotExist) }
func (s sysctl) wrap(do string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("sysctl: %s: %s: %w", s, do, err)
}

// String is the name as sysctl(8) takes it: dots between the parts, a slash where a
// device's name has a dot.
func (s sysctl) String() string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(string(s))
}

// read returns the value without the newline. It is a bare system call or three,
// since each start reads some: os.ReadFile would also ask for the size and poll.
func (s sysctl) read() (string, error) {
	fd, err := unix.Open(s.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", s.wrap("read", err)
	}
	defer unix.Close(fd)
	var buf [64]byte // those of this package are numbers
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", s.wrap("read", err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// write sets the value by one write, as the kernel wants it.
func (s sysctl) write(value string) error {
	f, err := os.OpenFile(s.path(), os.O_WRONLY, 0)
	if err != nil {
		return s.wrap("write", err)
	}
	defer f.Close()
	gate.Change()
	if _, err := f.WriteString(value); err != nil {
		return s.wrap("write "+value, err)
	}
	return nil
}
