package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A comparison collects differences.
type comparison struct{ found []Difference }

func (c *comparison) differ(object, want, got string) {
	if want != got {
		c.found = append(c.found, Difference{Object: object, Want: want, Got: got})
	}
}

// checkBoth compares both sides. host is the strategy's own half of it, nil if it
// has nothing on the host.
func (h *Host) checkBoth(target *NetNS, a Attachment, host func(*comparison, Attachment) error) ([]Difference, error) {
	var c comparison
	if host != nil {
		if err := host(&c, a); err != nil {
			return nil, err
		}
	}
	err := target.Inside(func(in *Inside) error {
		return in.check(&c, a)
	})
	return c.found, err
}

// After is a when the plugins behind a's have changed it, as their result last tells: the
// interface's MAC address and MTU are what it says, or anything where it doesn't say.
func (a Attachment) After(last Attachment) Attachment {
	if a.MAC != "" {
		a.MAC = last.MAC
	}
	if last.MTU != a.MTU {
		a.Tuning = &Tuning{MTU: max(last.MTU, minMTU)} // whose it is to compare, then
	}
	return a
}

// checkHostEnd compares the host's end and returns it; false if it isn't there.
func (h *Host) checkHostEnd(c *comparison, a Attachment) (link, bool, error) {
	l, err := h.c.linkByName(a.HostIf)
	if errors.Is(err, unix.ENODEV) {
		c.differ(a.HostIf, "a veth", "none")
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	c.differ(a.HostIf, "a veth", "a "+l.kind)
	if !a.leftDown() || !l.up() {
		c.differ(a.HostIf+": state", "up", state(l))
	}
	c.differ(a.HostIf+": MTU", strconv.Itoa(a.MTU), strconv.Itoa(l.mtu))
	return l, true, nil
}

func (h *Host) checkPort(c *comparison, a Attachment) error {
	end, ok, err := h.checkHostEnd(c, a)
	if err != nil || !ok {
		return err
	}
	br, err := h.c.linkByName(a.Bridge)
	if errors.Is(err, unix.ENODEV) {
		c.differ(a.Bridge, "a bridge", "none")
		return nil
	}
	if err != nil {
		return err
	}
	c.differ(a.Bridge, "a bridge", "a "+br.kind)
	if !a.leftDown() || !br.up() {
		c.differ(a.Bridge+": state", "up", state(br))
	}
	if end.master != br.index {
		c.differ(a.HostIf+": bridge", a.Bridge, h.nameOf(end.master))
		return nil
	}
	return h.checkPortOptions(c, a, end, br)
}

func (h *Host) nameOf(index int) string {
	if index == 0 {
		return "none"
	}
	l, err := h.c.linkByIndex(index)
	if err != nil {
		return "device " + strconv.Itoa(index)
	}
	return l.name
}

func (h *Host) checkPtp(c *comparison, a Attachment) error {
	end, ok, err := h.checkHostEnd(c, a)
	if err != nil || !ok {
		return err
	}
	have, err := h.c.routes(end.index, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", a.HostIf, err)
	}
	for _, to := range a.Addresses {
		c.route(a.HostIf, ptpHostRoute(end.index, to.Addr()), have)
	}
	addrs, err := h.c.addrs(end.index)
	if err != nil {
		return fmt.Errorf("%s: %w", a.HostIf, err)
	}
	for _, r := range a.Routes { // the gateways are the container's host routes on the link
		if !r.Gateway.IsValid() && r.Dst.IsSingleIP() {
			c.addr(a.HostIf, r.Dst, addrs)
		}
	}
	return nil
}

func state(l link) string {
	switch {
	case !l.up():
		return "down"
	case !l.carrier():
		return "up without carrier"
	}
	return "up"
}

// check compares the container's end.
func (in *Inside) check(c *comparison, a Attachment) error {
	l, err := in.c.linkByName(a.IfName)
	if errors.Is(err, unix.ENODEV) {
		c.differ(a.IfName, "an interface", "none")
		return nil
	}
	if err != nil {
		return err
	}
	// A tap has a carrier while a program has it open.
	if !a.leftDown() && (a.Tap == nil || !l.up()) {
		c.differ(a.IfName+": state", "up", state(l))
	}
	if a.MTU != 0 && (a.Tuning == nil || a.Tuning.MTU == 0) { // else tuning's to compare
		c.differ(a.IfName+": MTU", strconv.Itoa(a.MTU), strconv.Itoa(l.mtu))
	}
	if a.MAC != "" {
		c.differ(a.IfName+": MAC", a.MAC, l.mac.String())
	}
	if err := in.checkAddrs(c, l.index, a); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	if err := in.checkRoutes(c, l.index, a); err != nil {
		return fmt.Errorf("%s: %w", a.IfName, err)
	}
	return nil
}

// checkRoutes compares table by table; most attachments have one.
func (in *Inside) checkRoutes(c *comparison, index int, a Attachment) error {
	wanted := make(map[int][]fibRoute)
	for _, gw := range a.Gateways {
		wanted[0] = append(wanted[0], fibRoute{dst: defaultRoute(gw), via: gw, index: index})
	}
	for _, r := range a.Routes {
		wanted[r.Table] = append(wanted[r.Table], inner(index, r, a))
	}
	for table, routes := range wanted {
		have, err := in.routesOf(index, table, a)
		if err != nil {
			return err
		}
		for _, want := range routes {
			c.route(a.IfName, want, have)
		}
	}
	return nil
}

// checkAddrs compares in both directions: an address more is a difference, too.
func (in *Inside) checkAddrs(c *comparison, index int, a Attachment) error {
	have, err := in.c.addrs(index)
	if err != nil {
		return err
	}
	for _, want := range a.Addresses {
		c.addr(a.IfName, want, have)
	}
	for _, got := range have {
		if got.linkLocal() {
			if a.NoIPv6 {
				c.differ(a.IfName+": IPv6", "disabled", got.prefix.String())
			}
			continue
		}
		if !slices.Contains(a.Addresses, got.prefix) {
			c.differ(a.IfName+": address", "none", got.prefix.String())
		}
	}
	return nil
}

func (c *comparison) addr(ifName string, want netip.Prefix, have []ifaddr) {
	for _, got := range have {
		if got.prefix == want {
			if got.tentative() || got.flags&unix.IFA_F_DADFAILED != 0 {
				c.differ(ifName+": address "+want.String(), "usable", "tentative")
			}
			return
		}
	}
	c.differ(ifName+": address", want.String(), "none")
}

// route looks for want. A metric that want leaves to us may be any: a second
// network's default route has one.
func (c *comparison) route(ifName string, want fibRoute, have []fibRoute) {
	var others []string
	for _, got := range have {
		if got.dst != want.dst {
			continue
		}
		if want.heldBy(got) {
			return
		}
		others = append(others, got.String())
	}
	if len(others) == 0 {
		others = []string{"none"}
	}
	c.differ(ifName+": route", want.String(), strings.Join(others, ", "))
}

// heldBy says whether got is what the kernel made of r, which leaves to it what is 0.
func (r fibRoute) heldBy(got fibRoute) bool {
	same := func(want, got int) bool { return want == 0 || want == got }
	return got.via == r.via && got.scope == r.scope && same(r.metric, got.metric) &&
		same(r.mtu, got.mtu) && same(r.advMSS, got.advMSS)
}
