package netsetup

import (
	"fmt"
	"slices"
	"testing"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

func TestPtp(t *testing.T) {
	t.Parallel()
	host := netsetuptest.NewHost(t)
	c, d := newContainer(t, host, "web"), newContainer(t, host, "db")
	p := planOf(t, ptpNet)
	a := c.start(t, host, p, prefixes("10.2.0.2/24", "fd00:2::2/64"))
	wantUsable(t, c.Node, "eth0", "10.2.0.1", "fd00:2::1")
	// The gateway's address is on each host's end.
	b := d.start(t, host, p, prefixes("10.2.0.3/24", "fd00:2::3/64"))
	wantUsable(t, d.Node, "eth0", "10.2.0.1", "fd00:2::1")
	wantEqual(t, "differences", fmt.Sprint(c.check(t, host, a), d.check(t, host, b)), "[] []")

	end := host.Link(t, a.HostIf)
	wantEqual(t, "host's addresses", fmt.Sprint(end.Addrs(4), end.Addrs(6)), "[10.2.0.1/32] [fd00:2::1/128]")
	wantEqual(t, "host's accept_ra", sysctl(t, host.Node, "ipv6/conf/"+a.HostIf+"/accept_ra"), "0")
	wantRoutes(t, host.Node, a.HostIf, "10.2.0.2 scope host", "fd00:2::1", "fd00:2::2", "fe80::/64")
	wantRoutes(t, c.Node, "eth0",
		"10.2.0.0/24 via 10.2.0.1 src 10.2.0.2", "10.2.0.1 src 10.2.0.2 scope link", "default via 10.2.0.1",
		"default via fd00:2::1", "fd00:2::/64 via fd00:2::1 src fd00:2::2", "fd00:2::1 src fd00:2::2", "fe80::/64")
}

// wantRoutes compares the routes of a device with want, sorted.
func wantRoutes(t *testing.T, n *netsetuptest.Node, dev string, want ...string) {
	t.Helper()
	var got []string
	for _, r := range n.Routes(t) {
		if r.Dev != dev {
			continue
		}
		s := r.Dst
		if r.Gateway != "" {
			s += " via " + r.Gateway
		}
		if r.PrefSrc != "" && r.Protocol != "kernel" {
			s += " src " + r.PrefSrc
		}
		if r.Scope != "" && r.Scope != "global" {
			s += " scope " + r.Scope
		}
		got = append(got, s)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("routes of %s:\n%q, want\n%q", dev, got, want)
	}
}

func TestPtpNeedsAddresses(t *testing.T) {
	t.Parallel()
	n := networkOf(`{"type": "ptp"}`)
	_, err := ptp{}.Plan(Request{Strategy: "ptp", Network: n, Source: "--network lan"})
	wantError(t, err, "--network lan: ipam: missing")
}
