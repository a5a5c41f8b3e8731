package netsetup

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
	"golang.org/x/sys/unix"
)

// What the tests against the kernel share: a host of their own, containers that
// are nothing but a network namespace, and the way of a start.

// A testContainer is a network namespace on a host, as nsinit and as a test sees it.
type testContainer struct {
	*netsetuptest.Node
	ns *NetNS
}

func newContainer(t *testing.T, host *netsetuptest.Host, name string) testContainer {
	t.Helper()
	var ns *NetNS
	err := host.DoInside(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns, err = currentNetNS(); err != nil {
			return err
		}
		return ns.BindName(name, "", noRecord)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if r := host.Run(t, "ip", "netns", "del", name); r.Code != 0 {
			t.Error(r.Stderr)
		}
	})
	return testContainer{Node: host.Named(t, name), ns: ns}
}

func noRecord(Object) error { return nil }

// onHost runs f in host's namespaces with a Host of its own.
func onHost(host *netsetuptest.Host, f func(h *Host) error) error {
	return host.DoInside(func() error {
		h, err := OpenHost(nil)
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
}

// inside runs f as the init does.
func (c testContainer) inside(f func(in *Inside) error) error {
	return c.DoInside(func() error {
		in, err := OpenInside()
		if err != nil {
			return err
		}
		defer in.Close()
		if err := f(in); err != nil {
			return err
		}
		return in.Settle()
	})
}

// attach is the host half of a start.
func (c testContainer) attach(host *netsetuptest.Host, p Plan, addrs []netip.Prefix, record Recorder) (a Attachment, err error) {
	err = onHost(host, func(h *Host) (err error) {
		a, err = Attach(context.Background(), h, c.ns, p, addrs, nil, record)
		return err
	})
	return a, err
}

// configure is the container half.
func (c testContainer) configure(attachments ...Attachment) error {
	return c.inside(func(in *Inside) error {
		if err := ConfigureLoopback(in, 0); err != nil {
			return err
		}
		for _, a := range attachments {
			if err := Configure(in, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// start is both.
func (c testContainer) start(t *testing.T, host *netsetuptest.Host, p Plan, addrs []netip.Prefix) Attachment {
	t.Helper()
	a, err := c.attach(host, p, addrs, noRecord)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.configure(a); err != nil {
		t.Fatal(err)
	}
	return a
}

func (c testContainer) check(t *testing.T, host *netsetuptest.Host, a Attachment) []Difference {
	t.Helper()
	var found []Difference
	err := onHost(host, func(h *Host) (err error) {
		found, err = Check(context.Background(), h, c.ns, a)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// sysctl reads a setting of the node's network namespace.
func sysctl(t *testing.T, n *netsetuptest.Node, key string) string {
	t.Helper()
	return n.Run(t, "cat", "/proc/sys/net/"+key).OK(t).Line()
}

// networkOf is a network of one plugin.
func networkOf(plugin string) *Network {
	v, err := readJSON([]byte(plugin))
	if err != nil {
		panic(err)
	}
	kind, _ := v.get("type")
	return &Network{Name: "lan", Source: "lan.conflist", Plugins: []Plugin{{Type: kind.text, Raw: []byte(plugin)}}}
}

// planOf plans one interface eth0 of container "web".
func planOf(t testing.TB, plugin string, change ...func(*Request)) Plan {
	t.Helper()
	n := networkOf(plugin)
	r := Request{Strategy: n.Plugins[0].Type, IfName: "eth0", Owner: "web", Network: n}
	for _, f := range change {
		f(&r)
	}
	s, err := StrategyOf(r.Strategy)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	pools     = `"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}`
	bridgeNet = `{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, ` + pools + `}`
	ptpNet    = `{"type": "ptp", "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
		"ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]}}`
)

func prefixes(all ...string) (p []netip.Prefix) {
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// lanAddrs are what IPAM gives container n of bridgeNet.
func lanAddrs(n int) []netip.Prefix {
	return prefixes(fmt.Sprintf("10.1.0.%d/24", n), fmt.Sprintf("fd00:1::%x/64", n))
}

func wantEqual[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "failed to") {
		t.Errorf("error %q says failed to", err)
	}
}

// wantUsable asserts what a program that starts now may count on: no tentative
// address, carrier, and an answer to the first packet.
func wantUsable(t *testing.T, n *netsetuptest.Node, ifName string, reach ...string) {
	t.Helper()
	l := n.Link(t, ifName)
	if !l.Up() {
		t.Errorf("%s: flags %v", ifName, l.Flags)
	}
	for _, a := range l.AddrInfo {
		if a.Tentative || a.DADFailed {
			t.Errorf("%s: address %s is tentative", ifName, a.Local)
		}
	}
	for _, to := range reach {
		if err := n.Ping(netip.MustParseAddr(to), 56, 2*time.Second); err != nil {
			t.Errorf("first packet to %s: %v", to, err)
		}
	}
}

// together runs f for 0 to n-1 at once and returns the errors.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errs
}
