package netsetup

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
)

// bandwidth limits what an interface carries, by token buckets on the host, as the
// CNI plugin of the same name. What goes to the container is limited on its host
// end. What comes from it is redirected to a device of its own (ifb), since only
// what leaves a device can be queued.
type bandwidth struct{}

// BandwidthPolicy is CNI's bandwidth.
func BandwidthPolicy() Policy { return bandwidth{} }

// A shaping is the configuration of bandwidth.
type shaping struct {
	Bandwidth
	shaped   []netip.Prefix // only what goes there or comes from there is limited
	unshaped []netip.Prefix // all but that
}

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (bandwidth) Plan(p Plan, plugin Plugin) (any, error) {
	var s shaping
	var c *confReader
	err := policyConf(p, plugin, func(reader *confReader) []confKey {
		c = reader
		return append(s.rates(c), []confKey{
			{"shapedSubnets", c.list(c.subnets(&s.shaped))},
			{"unshapedSubnets", c.list(c.subnets(&s.unshaped))},
		}...)
	})
	if c == nil {
		return nil, err
	}
	place := p.placeOf(plugin)
	v, err := readJSON(plugin.Raw)
	if err != nil {
		return nil, err
	}
	if !given(&v, s.rates(c)) { // what the configuration says counts more
		place = s.fromRuntime(c, p, &v, place)
	}
	s.check(c, p, place)
	return &s, errors.Join(c.faults...)
}

func (s *shaping) rates(c *confReader) []confKey {
	return []confKey{
		{"ingressRate", c.amount(&s.IngressRate)},
		{"ingressBurst", c.amount(&s.IngressBurst)},
		{"egressRate", c.amount(&s.EgressRate)},
		{"egressBurst", c.amount(&s.EgressBurst)},
	}
}

func given(v *jsonValue, keys []confKey) bool {
	for _, k := range keys {
		if _, ok := v.get(k.name); ok {
			return true
		}
	}
	return false
}

func (s *shaping) fromRuntime(c *confReader, p Plan, v *jsonValue, place string) string {
	s.Bandwidth = p.Runtime.Bandwidth
	_, runtime := ofArgs(v)
	place += ".runtimeConfig.bandwidth"
	if b, ok := runtime.get("bandwidth"); ok {
		c.some(place, b, s.rates(c))
	}
	return place
}

func (c *confReader) amount(to *uint64) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '0' {
			c.kind(path, v, "a number")
			return
		}
		n, err := strconv.ParseUint(v.text, 10, 64)
		if err != nil {
			c.faultf(path, v.text, "a whole number from 0 is wanted")
			return
		}
		*to = n
	}
}

func (c *confReader) subnets(to *[]netip.Prefix) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		var p netip.Prefix
		if c.prefix(&p)(path, v); !p.IsValid() {
			return
		}
		if p != p.Masked() {
			c.faultf(path, v.text, "has host bits; the subnet is %s", p.Masked())
		}
		*to = append(*to, p)
	}
}

func (s *shaping) check(c *confReader, p Plan, place string) {
	c.checkBucket(place+".ingress", s.IngressRate, s.IngressBurst)
	c.checkBucket(place+".egress", s.EgressRate, s.EgressBurst)
	if len(s.shaped) > 0 && len(s.unshaped) > 0 {
		c.faults = append(c.faults, fmt.Errorf("%s: %s: shapedSubnets and unshapedSubnets exclude each other; one of them", c.where, place))
	}
	switch p.Strategy {
	case "loopback", "macvlan", "ipvlan", "vlan", "host-device", "dummy", "tap", "netns":
		if s.Bandwidth != (Bandwidth{}) {
			c.faults = append(c.faults, fmt.Errorf("%s: bandwidth: a network of type %s has no end on the host to limit; bridge and ptp have", c.where, p.Strategy))
		}
	}
}

const minRate = 8 // bits a second: the kernel counts whole bytes

func (c *confReader) checkBucket(path string, rate, burst uint64) {
	value := func(n uint64) string { return strconv.FormatUint(n, 10) }
	switch {
	case rate == 0 && burst == 0:
	case burst == 0:
		c.faultf(path+"Rate", value(rate), "without a burst no packet passes; give both")
	case rate == 0:
		c.faultf(path+"Burst", value(burst), "without a rate, it means nothing; give both")
	case rate < minRate || burst < minRate:
		c.faultf(path+"Rate", value(rate), "rate and burst are bits; at least %d", minRate)
	case burst/8 >= math.MaxUint32:
		c.faultf(path+"Burst", value(burst), "more than 4 GB; less")
	}
}

// A bucket is a token bucket as the kernel counts: bytes.
type bucket struct {
	rate  uint64 // a second
	burst uint32
	limit uint32 // of what waits; more is dropped
}

// latency is for how long a packet waits at most.
const latencyMS = 25

func bucketOf(rateBits, burstBits uint64) bucket {
	b := bucket{rate: rateBits / 8, burst: uint32(burstBits / 8)}
	b.limit = uint32(min(b.rate/(1000/latencyMS)+uint64(b.burst), math.MaxUint32))
	return b
}

// ticks is the time in which the burst flows at the rate, in the unit of the
// kernel's packet scheduler (64 ns), by way of whole microseconds as in iproute2.
func (b bucket) ticks() uint32 {
	us := uint64(b.burst) * 1e6 / b.rate
	return uint32(min(us*1000/64, math.MaxUint32))
}

func (s *shaping) ingress() (bucket, bool) {
	return bucketOf(s.IngressRate, s.IngressBurst), s.IngressRate > 0
}

func (s *shaping) egress() (bucket, bool) {
	return bucketOf(s.EgressRate, s.EgressBurst), s.EgressRate > 0
}

// selective says whether only some of the traffic is limited.
func (s *shaping) selective() bool { return len(s.shaped)+len(s.unshaped) > 0 }

// subnets are those that a filter picks, and say whether what it picks is limited.
func (s *shaping) subnets() (all []netip.Prefix, limited bool) {
	if len(s.shaped) > 0 {
		return s.shaped, true
	}
	return s.unshaped, false
}

// Commands returns what Attach does, in the words of iproute2.
func (bandwidth) Commands(p Plan, conf any, a Attachment) []Command {
	s, ok := conf.(*shaping)
	if !ok {
		return nil
	}
	var all []Command
	host := a.HostIf
	if host == "" {
		host = "HOSTIF"
	}
	add := func(format string, args ...any) { all = append(all, Command{Line: fmt.Sprintf(format, args...)}) }
	if b, ok := s.ingress(); ok {
		s.bucketCommands(add, host, "src", b)
	}
	if b, ok := s.egress(); ok {
		ifb := a.IFB
		if ifb == "" {
			ifb = "IFB"
		}
		add("ip link add %s%s txqueuelen 0 up type ifb", ifb, mtuWords(a.MTU))
		add("ip link set dev %s alias %s", ifb, word(hostAlias(pair{network: a.Network, owner: p.Owner, ifName: a.IfName})))
		s.bucketCommands(add, ifb, "dst", b)
		add("tc qdisc add dev %s handle ffff: ingress", host)
		add("tc filter add dev %s parent ffff: protocol all prio 1 u32 match u32 0 0 flowid 1:1 action mirred egress redirect dev %s", host, ifb)
	}
	return all
}

// bucketCommands queue what leaves device. side is the field of a packet's header
// that has the other party's address.
func (s *shaping) bucketCommands(add func(string, ...any), device, side string, b bucket) {
	rate := strconv.FormatUint(b.rate, 10) + "bps"
	if !s.selective() {
		add("tc qdisc add dev %s root handle 1: tbf rate %s burst %d latency %dms", device, rate, b.burst, latencyMS)
		return
	}
	picked, limited := s.subnets()
	def, class := 2, "1:0"
	if limited {
		def, class = 0, "1:2"
	}
	add("tc qdisc add dev %s root handle 1: htb default %d direct_qlen %d", device, def, directQueue)
	add("tc class add dev %s parent 1: classid 1:2 htb rate %s ceil %s burst %d cburst %d quantum %d", device, rate, rate, b.burst, b.burst, b.quantum())
	add("tc qdisc add dev %s parent 1:2 handle 2: bfifo limit %d", device, b.limit)
	for _, p := range picked {
		protocol, prio, match := "ip", 1, "ip"
		if p.Addr().Is6() {
			protocol, prio, match = "ipv6", 2, "ip6"
		}
		add("tc filter add dev %s parent 1: protocol %s prio %d u32 match %s %s %s flowid %s", device, protocol, prio, match, side, p, class)
	}
}

// quantum is how many bytes a class may send before it is another one's turn. There
// is one class only, and the kernel complains of what it thinks odd.
func (b bucket) quantum() int { return int(max(min(b.rate/10, 200_000), 1000)) }
