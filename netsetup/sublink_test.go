package netsetup

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// listen collects the announcements of addresses that come in on a device of n. The
// function that it returns waits for enough of them.
func listen(t *testing.T, n *netsetuptest.Node, name string) func(enough func(heard string) bool) string {
	t.Helper()
	fd := -1
	err := n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap16(unix.ETH_P_ALL))); err != nil {
			return err
		}
		card, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ALL), Ifindex: card.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	limit := unix.Timeval{Usec: 50_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return func(enough func(string) bool) string {
		var heard strings.Builder
		buf := make([]byte, 2048)
		for deadline := time.Now().Add(5 * time.Second); !enough(heard.String()) && time.Now().Before(deadline); {
			if k, _, err := unix.Recvfrom(fd, buf, 0); err == nil {
				heard.WriteString(announcement(buf[:k]))
			}
		}
		return heard.String()
	}
}

func swap16(n uint16) uint16 { return n<<8 | n>>8 }

// announcement describes a gratuitous ARP message (RFC 5227) or an unsolicited
// neighbour advertisement (RFC 4861); "" for any other frame.
func announcement(b []byte) string {
	if len(b) < 42 {
		return ""
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		mac, from, of := net.HardwareAddr(b[22:28]), netip.AddrFrom4([4]byte(b[28:32])), netip.AddrFrom4([4]byte(b[38:42]))
		if from == of {
			return fmt.Sprintf("ARP %s is-at %s\n", of, mac)
		}
	case unix.ETH_P_IPV6:
		if len(b) >= 78 && b[20] == unix.IPPROTO_ICMPV6 && b[54] == 136 {
			return fmt.Sprintf("NA %s\n", netip.AddrFrom16([16]byte(b[62:78])))
		}
	}
	return ""
}
