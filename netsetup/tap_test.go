package netsetup

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// needTun has the kernel load what makes /dev/net/tun, where nobody has done so yet.
func needTun(t *testing.T, host *netsetuptest.Host) {
	t.Helper()
	host.Run(t, "sh", "-c", "test -c /dev/net/tun || modprobe tun")
}

func TestTap(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ keys, words string }{
		"plain":    {``, "tun type tap pi off vnet_hdr off persist on "},
		"owner":    {`"owner": 61234`, "tun type tap pi off vnet_hdr off persist on user 61234 "},
		"group":    {`"group": 0`, "tun type tap pi off vnet_hdr off persist on group root "},
		"both":     {`"owner": 0, "group": 61235`, "tun type tap pi on vnet_hdr on persist on user root group 61235 "},
		"queues":   {`"multiQueue": true`, "tun type tap pi off vnet_hdr off multi_queue numqueues 0 numdisabled 0 persist on "},
		"all":      {`"multiQueue": true, "owner": 61234, "group": 61235, "mtu": 1400`, "tun type tap pi off vnet_hdr on multi_queue numqueues 0 numdisabled 0 persist on user 61234 group 61235 "},
		"with MAC": {`"mac": "02:00:00:00:00:07"`, "link/ether 02:00:00:00:00:07 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := netsetuptest.NewHost(t)
			needTun(t, host)
			c := newContainer(t, host, "web")
			keys := test.keys
			if keys != "" {
				keys += ", "
			}
			a := c.start(t, host, planOf(t, `{"type": "tap", `+keys+pools9+`}`), addrs9(2))
			wantParts(t, linkData(t, c.Node, "eth0"), test.words)
			wantEqual(t, "arp_notify, ndisc_notify", sysctl(t, c.Node, "ipv4/conf/eth0/arp_notify"), "1")
			wantEqual(t, "addresses", fmt.Sprint(c.Link(t, "eth0").Addrs(4), c.Link(t, "eth0").Addrs(6)), "[10.9.0.2/24] [fd00:9::2/64]")
			wantRoutes(t, c.Node, "eth0", "10.9.0.0/24 scope link", "default via 10.9.0.1", "default via fd00:9::1", "fd00:9::/64")
			wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
			owner := uint32(99)
			a.Tap.Owner, a.Tap.MultiQueue = &owner, !a.Tap.MultiQueue
			wantEqual(t, "differences", len(c.check(t, host, a)), 2)
		})
	}
}

// TestTapCarriesFrames attaches to the device as a virtual machine would, and has a
// frame go each way.
func TestTapCarriesFrames(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	needTun(t, host)
	c := newContainer(t, host, "web")
	c.start(t, host, planOf(t, `{"type": "tap", "owner": 1000, `+pools9+`}`), addrs9(2))
	wantEqual(t, "carrier before", c.Link(t, "eth0").Up(), false)
	fd := attachTap(t, c.Node, "eth0")
	wantUsable(t, c.Node, "eth0")
	// Out: the container asks who has its gateway.
	var asking sync.WaitGroup
	asking.Go(func() { _ = c.Ping(addrs9(1)[0].Addr(), 56, netsetuptest.Patience/4) })
	t.Cleanup(asking.Wait) // before the namespace is closed
	request := nextARP(t, fd)
	mac := c.Link(t, "eth0").Address
	wantEqual(t, "asker", fmt.Sprintf("%x", request[22:28]), "0a580a090002")
	wantEqual(t, "MAC", mac, "0a:58:0a:09:00:02")
	// In: the machine asks who has the container's address, and gets an answer.
	ask := bytes.Join([][]byte{
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1},
		{10, 9, 0, 1, 0, 0, 0, 0, 0, 0, 10, 9, 0, 2},
	}, nil)
	if _, err := unix.Write(fd, ask); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if answer := nextARP(t, fd); answer[21] == 2 {
			wantEqual(t, "answer", fmt.Sprintf("%x", answer[22:32]), "0a580a0900020a090002")
			return
		}
	}
	t.Error("no answer")
}

func attachTap(t *testing.T, n *netsetuptest.Node, name string) int {
	t.Helper()
	fd := -1
	err := n.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// nextARP reads frames up to the next ARP message.
func nextARP(t *testing.T, fd int) []byte {
	t.Helper()
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(netsetuptest.Patience); time.Now().Before(deadline); {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if k, err := unix.Read(fd, buf); err == nil && k >= 42 && buf[12] == 8 && buf[13] == 6 {
			return buf[:k]
		}
	}
	t.Fatal("no ARP message")
	return nil
}

// TestTapBridge makes the device a port of a bridge that the namespace has.
func TestTapBridge(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	needTun(t, host)
	c := newContainer(t, host, "vm")
	p := planOf(t, `{"type": "tap", "bridge": "br7"}`)
	_, err := c.attach(host, p, nil, noRecord)
	wantError(t, err, `lan.conflist: plugins[0].bridge: "br7": no such device in the container, where a tap's bridge is; make it first`)
	c.Run(t, "sh", "-ec", "ip link add br7 type bridge; ip link add v0 type veth peer name v1").OK(t)
	a := c.start(t, host, p, nil)
	wantEqual(t, "bridge", c.Link(t, "eth0").Master, "br7")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[]")
	c.Run(t, "ip", "link", "set", "eth0", "nomaster").OK(t)
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a)), "[eth0: bridge: want br7, the kernel has device 0]")

	_, err = c.attach(host, p, nil, noRecord)
	wantError(t, err, "eth0: make: the container's network namespace has an interface of this name already")
	_, err = c.attach(host, planOf(t, `{"type": "tap"}`, func(r *Request) { r.IfName = "br7" }), nil, noRecord)
	wantError(t, err, "br7: make: the container's network namespace has an interface of this name already")
	// A device that can't be finished is gone.
	_, err = c.attach(host, planOf(t, `{"type": "tap", "bridge": "v0"}`, func(r *Request) { r.IfName = "eth1" }), nil, noRecord)
	wantError(t, err, "eth1: set MAC, MTU and bridge")
	wantEqual(t, "devices", fmt.Sprint(netsetuptest.Names(c.Links(t))), "[lo br7 v1 v0 eth0]")
}
