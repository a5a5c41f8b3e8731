package netsetup

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// kindIFB is the kind of an Object that is the device through which a container's
// traffic goes to be limited. Its name is random, so that it is nobody else's.
const kindIFB = "ifb"

// Attach limits the host's end of a. All of it dies with that end but for the device
// behind which the container's own traffic is limited, which is recorded first.
func (bandwidth) Attach(ctx context.Context, h *Host, target *NetNS, p Plan, conf any, a *Attachment, record Recorder) error {
	s, ok := conf.(*shaping)
	if err := ctx.Err(); err != nil || !ok || s.Bandwidth == (Bandwidth{}) {
		return err
	}
	end, err := h.hostEnd(target, *a)
	if err != nil {
		return err
	}
	h.warnSmall(s, end)
	if b, ok := s.ingress(); ok {
		if err := h.limit(end.index, s, b, true); err != nil {
			return fmt.Errorf("%s: %w", end.name, err)
		}
	}
	b, ok := s.egress()
	if !ok {
		return nil
	}
	name := hostIfName()
	if err := record(Object{Kind: kindIFB, Network: a.Network, Name: name, Owner: p.Owner}); err != nil {
		return err
	}
	a.IFB = name
	ifb, err := h.makeIFB(name, end.mtu, hostAlias(pair{network: a.Network, owner: p.Owner, ifName: a.IfName}))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := h.limit(ifb, s, b, false); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := h.c.redirectAll(end.index, ifb); err != nil {
		return fmt.Errorf("%s: %w", end.name, err)
	}
	return nil
}

// warnSmall tells of buckets that no whole packet fits into: the kernel drops it.
func (h *Host) warnSmall(s *shaping, end link) {
	frame := uint64(end.mtu+14) * 8
	for _, one := range []struct {
		key   string
		burst uint64
	}{{"ingressBurst", s.IngressBurst}, {"egressBurst", s.EgressBurst}} {
		if one.burst > 0 && one.burst < frame {
			h.Warn(fmt.Sprintf("bandwidth: %s: %d bits are less than a packet of %s, and the kernel drops what doesn't fit; at least %d", one.key, one.burst, end.name, frame))
		}
	}
}

// limit queues what leaves a device. fromSubnet says where the other party's address
// is: what goes to the container has it as its source.
func (h *Host) limit(index int, s *shaping, b bucket, fromSubnet bool) error {
	if !s.selective() {
		return h.c.addBucket(index, b)
	}
	picked, limited := s.subnets()
	def, class := uint32(2), uint32(classDirect)
	if limited {
		def, class = 0, classLimited
	}
	if err := h.c.addClasses(index, b, def); err != nil {
		return err
	}
	for _, p := range picked {
		if err := h.c.pick(index, p, fromSubnet, class); err != nil {
			return fmt.Errorf("subnet %s: %w", p, err)
		}
	}
	return nil
}

func (h *Host) makeIFB(name string, mtu int, alias string) (index int, err error) {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("ifb"))
	err = h.c.addLink(ifinfo(0, unix.IFF_UP, unix.IFF_UP), nameAttr(name), mtuAttr(mtu),
		nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(0)), info)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 0, fmt.Errorf("make a device of type ifb: this kernel has none (CONFIG_IFB); leave egressRate out: %w", err)
	}
	if err != nil {
		return 0, fmt.Errorf("make: %w", err)
	}
	l, err := h.c.linkByName(name)
	if err != nil {
		return 0, err
	}
	if err := h.c.setLink(ifinfo(l.index, 0, 0), nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(alias))); err != nil {
		return 0, fmt.Errorf("set alias: %w", err)
	}
	return l.index, nil
}

// hostEnd finds the host's end of a, by the name that is known or, behind a plugin
// that isn't ours, by the inner end's peer.
func (h *Host) hostEnd(target *NetNS, a Attachment) (link, error) {
	if a.HostIf != "" {
		return h.c.linkByName(a.HostIf)
	}
	var inner link
	err := target.Inside(func(in *Inside) (err error) {
		inner, err = in.c.linkByName(a.IfName)
		return err
	})
	if err != nil {
		return inner, err
	}
	if inner.kind != "veth" || inner.peer == 0 {
		return inner, fmt.Errorf("%s: has no end on the host to limit; bridge and ptp make one", a.IfName)
	}
	end, err := h.c.linkByIndex(inner.peer)
	if err == nil && (end.kind != "veth" || end.peer != inner.index) {
		err = fmt.Errorf("%s: its other end isn't on the host", a.IfName)
	}
	return end, err
}

// undoIFB removes the device. Only one of its type is it.
func (h *Host) undoIFB(o Object) error {
	l, err := h.c.linkByName(o.Name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil || l.kind != "ifb" {
		return err
	}
	if err := h.c.delLink(l.index); err != nil {
		return fmt.Errorf("%s: delete: %w", o.Name, err)
	}
	return nil
}

// Check returns every difference between the limits and the kernel.
func (bandwidth) Check(ctx context.Context, h *Host, target *NetNS, _ Plan, conf any, a Attachment) ([]Difference, error) {
	s, ok := conf.(*shaping)
	if err := ctx.Err(); err != nil || !ok || s.Bandwidth == (Bandwidth{}) {
		return nil, err
	}
	var c comparison
	end, err := h.hostEnd(target, a)
	if errors.Is(err, unix.ENODEV) {
		c.differ(a.HostIf, "a device", "none")
		return c.found, nil
	}
	if err != nil {
		return nil, err
	}
	if b, ok := s.ingress(); ok {
		if err := h.checkLimit(&c, end, s, b); err != nil {
			return nil, err
		}
	}
	if b, ok := s.egress(); ok {
		if err := h.checkEgress(&c, end, s, b, a.IFB); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

func (h *Host) checkEgress(c *comparison, end link, s *shaping, b bucket, name string) error {
	to, err := h.c.redirection(end.index)
	if err != nil {
		return fmt.Errorf("%s: %w", end.name, err)
	}
	if to == 0 {
		c.differ(end.name+": what comes in", "redirected", "not redirected")
		return nil
	}
	ifb, err := h.c.linkByIndex(to)
	if errors.Is(err, unix.ENODEV) {
		c.differ(end.name+": what comes in", "redirected to a device", "redirected to none")
		return nil
	}
	if err != nil {
		return err
	}
	if name != "" {
		c.differ(end.name+": what comes in goes to", name, ifb.name)
	}
	c.differ(ifb.name+": state", "up", state(ifb))
	return h.checkLimit(c, ifb, s, b)
}

func (h *Host) checkLimit(c *comparison, device link, s *shaping, b bucket) error {
	got, err := h.c.limitOf(device.index)
	if err != nil {
		return fmt.Errorf("%s: %w", device.name, err)
	}
	want := "tbf " + b.String()
	if s.selective() {
		want = "htb " + b.String()
	}
	c.differ(device.name+": queue", want, got)
	return nil
}

func (b bucket) String() string {
	return fmt.Sprintf("rate %d B/s, burst %d ticks, limit %d B", b.rate, b.ticks(), b.limit)
}
