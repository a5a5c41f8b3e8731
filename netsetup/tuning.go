package netsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tuning changes an interface and the settings of its namespace, as the CNI plugin
// of the same name. A setting is written before the interface is up: between the
// two a router's advertisement or a neighbour could do what it forbids.
type tuning struct{}

// TuningPolicy is CNI's tuning.
func TuningPolicy() Policy { return tuning{} }

// A Tuning is what tuning changes. A nil or zero field leaves what there is.
type Tuning struct {
	Sysctls  []Sysctl `json:"sysctls,omitzero"` // in the order of the file
	MAC      string   `json:"mac,omitzero"`
	MTU      int      `json:"mtu,omitzero"` // bytes
	Promisc  *bool    `json:"promisc,omitzero"`
	AllMulti *bool    `json:"allmulti,omitzero"` // all multicast packets are received
	TxQLen   *int     `json:"txQLen,omitzero"`   // packets
}

// A Sysctl is a kernel setting of the network namespace.
type Sysctl struct {
	Key   string `json:"key"` // its path below /proc/sys: net/core/somaxconn
	Value string `json:"value"`
}

// kindTuning is the kind of an Object that holds what was before in Was, as JSON.
// Name is the namespace's path.
const kindTuning = "tuning"

// ifNameWord stands in a setting's key for the interface's name.
const ifNameWord = "IFNAME"

// Plan validates plugin without asking the kernel and returns all its faults at once.
func (tuning) Plan(p Plan, plugin Plugin) (any, error) {
	var t Tuning
	var c *confReader
	var promisc bool
	err := policyConf(p, plugin, func(reader *confReader) []confKey {
		c = reader
		return append(t.keys(c, &promisc), ignored("dataDir")...)
	})
	if c == nil {
		return nil, err
	}
	t.fromRuntime(c, p, plugin, &promisc)
	if promisc {
		t.Promisc = &promisc
	}
	t.check(c, p, p.placeOf(plugin))
	return &t, errors.Join(c.faults...)
}

func (t *Tuning) keys(c *confReader, promisc *bool) []confKey {
	return []confKey{
		{"sysctl", c.sysctls(&t.Sysctls)},
		{"mac", c.text(&t.MAC)},
		{"mtu", c.number(&t.MTU)},
		{"promisc", c.boolean(promisc)},
		{"allmulti", optional(c.boolean, &t.AllMulti)},
		{"txQLen", optional(c.number, &t.TxQLen)},
	}
}

// fromRuntime takes what the start asks of the plugin, the later the stronger:
// CNI_ARGS, the network selection or runtimeConfig, args.cni.
func (t *Tuning) fromRuntime(c *confReader, p Plan, plugin Plugin, promisc *bool) {
	if mac := p.Runtime.Args["MAC"]; mac != "" {
		t.MAC = mac
	}
	if p.MAC != "" {
		t.MAC = p.MAC
	}
	v, err := readJSON(plugin.Raw)
	if err != nil {
		return // told
	}
	args, runtime := ofArgs(&v)
	place := p.placeOf(plugin)
	c.some(place+".runtimeConfig", runtime, []confKey{{"mac", c.text(&t.MAC)}})
	c.some(place+".args.cni", args, t.keys(c, promisc))
}

func (c *confReader) sysctls(to *[]Sysctl) func(string, *jsonValue) {
	return func(path string, v *jsonValue) {
		if v.kind != '{' {
			c.kind(path, v, "an object")
			return
		}
		for i := range v.members {
			m := &v.members[i]
			s := Sysctl{Key: m.key}
			c.text(&s.Value)(path+"."+m.key, &m.value)
			*to = append(*to, s)
		}
	}
}

func (t *Tuning) check(c *confReader, p Plan, place string) {
	if t.MAC != "" {
		mac, err := ParseMAC(t.MAC)
		if err != nil {
			c.faultf(place+".mac", t.MAC, "%w", err)
		}
		t.MAC = mac.String()
	}
	_, v6 := p.families()
	if err := CheckMTU(t.MTU, v6); err != nil {
		c.faultf(place+".mtu", strconv.Itoa(t.MTU), "%w", err)
	}
	if t.TxQLen != nil && *t.TxQLen > 1<<31-1 {
		c.faultf(place+".txQLen", strconv.Itoa(*t.TxQLen), "out of range; at most %d", 1<<31-1)
	}
	if len(t.Sysctls) == 0 {
		return
	}
	allowed, err := readAllowlist(allowlistFile)
	if err != nil {
		c.faults = append(c.faults, err)
	}
	for i := range t.Sysctls {
		s := &t.Sysctls[i]
		if !allowed.permits(s.Key) {
			c.faultf(place+".sysctl", s.Key, "not among what %s allows; have it added there, or leave it out", allowlistFile)
		}
		if err := s.checkKey(); err != nil {
			c.faultf(place+".sysctl", s.Key, "%w", err)
		}
	}
}

// checkKey says why s can't be a setting of the network, and makes its key a path.
func (s *Sysctl) checkKey() error {
	path := strings.ReplaceAll(s.Key, ".", "/")
	if !strings.HasPrefix(path, "net/") {
		return errors.New("no setting of the network; net.core.somaxconn is one")
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" {
			return errors.New("has an empty part; write it as net.core.somaxconn")
		}
	}
	if err := checkRunes(path, ""); err != nil {
		return err
	}
	if strings.ContainsRune(s.Value, '\n') {
		return errors.New("several lines as a value; one")
	}
	s.Key = path
	return nil
}

// named returns s of the interface ifName.
func (s Sysctl) named(ifName string) Sysctl {
	s.Key = strings.Replace(s.Key, ifNameWord, ifName, 1)
	return s
}

// takesIPv6 says whether s takes all IPv6 addresses away.
func (s Sysctl) takesIPv6() bool {
	return strings.HasSuffix(s.Key, "/disable_ipv6") && s.Value != "0"
}

// Attach adds to a what Configure does inside, and records what was before: the namespace may
// live on when the interface is taken away.
func (tuning) Attach(ctx context.Context, _ *Host, target *NetNS, p Plan, conf any, a *Attachment, record Recorder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, ok := conf.(*Tuning)
	if !ok {
		return fmt.Errorf("no tuning but a %T", conf)
	}
	mine := t.of(a.IfName)
	a.Tuning = a.Tuning.with(mine)
	if mine.MAC != "" {
		a.MAC = mine.MAC
	}
	was, err := target.tuned(*a, mine)
	if err != nil {
		return err
	}
	text, err := json.Marshal(was)
	if err != nil {
		return err
	}
	return record(Object{Kind: kindTuning, Network: a.Network, Name: target.f.Name(), Owner: p.Owner, IfName: a.IfName, Was: string(text)})
}

func (t *Tuning) of(ifName string) Tuning {
	mine := *t
	mine.Sysctls = make([]Sysctl, len(t.Sysctls))
	for i, s := range t.Sysctls {
		mine.Sysctls[i] = s.named(ifName)
	}
	return mine
}

// with adds the changes of a later plugin of the list, which win.
func (t *Tuning) with(later Tuning) *Tuning {
	if t == nil {
		return &later
	}
	both := *t
	both.Sysctls = append(slices.Clip(both.Sysctls), later.Sysctls...)
	if later.MAC != "" {
		both.MAC = later.MAC
	}
	if later.MTU != 0 {
		both.MTU = later.MTU
	}
	if later.Promisc != nil {
		both.Promisc = later.Promisc
	}
	if later.AllMulti != nil {
		both.AllMulti = later.AllMulti
	}
	if later.TxQLen != nil {
		both.TxQLen = later.TxQLen
	}
	return &both
}

// Commands returns what Configure does, in the words of iproute2 and sysctl(8).
func (tuning) Commands(_ Plan, conf any, a Attachment) []Command {
	t, ok := conf.(*Tuning)
	if !ok {
		return nil
	}
	var all, late []Command
	mine := t.of(a.IfName)
	for _, s := range mine.Sysctls {
		c := Command{Inside: true, Early: !s.takesIPv6(), Line: "sysctl -w " + word(s.Key+"="+s.Value)}
		if s.takesIPv6() {
			late = append(late, c)
		} else {
			all = append(all, c)
		}
	}
	if words := mine.words(); words != "" {
		all = append(all, Command{Inside: true, Early: true, Line: "ip link set dev " + word(a.IfName) + words})
	}
	return append(all, late...)
}

func (t Tuning) words() string {
	var b strings.Builder
	if t.MAC != "" {
		b.WriteString(" address " + t.MAC)
	}
	if t.MTU != 0 {
		b.WriteString(" mtu " + strconv.Itoa(t.MTU))
	}
	if t.Promisc != nil {
		b.WriteString(" promisc " + onOff(*t.Promisc))
	}
	if t.AllMulti != nil {
		b.WriteString(" allmulticast " + onOff(*t.AllMulti))
	}
	if t.TxQLen != nil {
		b.WriteString(" txqueuelen " + strconv.Itoa(*t.TxQLen))
	}
	return b.String()
}

func onOff(yes bool) string {
	if yes {
		return "on"
	}
	return "off"
}

// flagOf says whether a device has a flag.
func flagOf(l link, flag uint32) *bool {
	yes := l.flags&flag != 0
	return &yes
}

// promisc says whether somebody had the device made promiscuous by hand: the kernel
// shows no flag for what packet sockets and bridges ask.
func promisc(l link) *bool { return flagOf(l, unix.IFF_PROMISC) }

func allMulti(l link) *bool { return flagOf(l, unix.IFF_ALLMULTI) }
