package container

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A DryRun is what a start, or a change of a running container's networks, would do to the network.
type DryRun struct {
	Namespace string         `json:"namespace"` // NETNS in the commands
	Pid       int            `json:"pid,omitempty"`
	Networks  []DryRunOfOne  `json:"networks"`
	Joins     string         `json:"joins,omitempty"` // the namespace that is joined as it is
	Mode      dryRunBeginsAs `json:"-"`
}

// A DryRunOfOne is one interface.
type DryRunOfOne struct {
	Network  string           `json:"network"`
	IfName   string           `json:"ifName"`
	Commands []EquivalentLine `json:"commands"`
}

// An EquivalentLine is a command of ip(8), nft(8) or their like.
type EquivalentLine struct {
	Inside bool   `json:"inside"` // in the container's network namespace
	Line   string `json:"line"`
}

// dryRunBeginsAs is how the script comes by the namespace.
type dryRunBeginsAs int

const (
	newNamespace dryRunBeginsAs = iota
	namedNamespace
	namelessNamespace
)

// DryRun plans s as Run would and says what that would do to the network. It does nothing: addresses are those
// that would be next.
func (r *Runtime) DryRun(ctx context.Context, s *Spec) (*DryRun, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	d := &DryRun{Namespace: s.NetnsName, Networks: []DryRunOfOne{}}
	if d.Namespace == "" {
		d.Namespace = s.ID
	}
	if d.Namespace == "" {
		d.Namespace = "nsinit"
	}
	switch {
	case s.HostNet:
		d.Joins = "the host's"
		return d, nil
	case s.joins():
		d.Joins = s.Networks[0].Source
		return d, nil
	}
	net, err := netsetup.OpenHost(r.warn)
	if err != nil {
		return nil, err
	}
	defer net.Close()
	reqs := slices.Concat(s.Networks, s.netDevices())
	for i := range reqs {
		if err := ipam.Preview(ctx, r.dataDir(), &reqs[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", reqs[i].Source, err)
		}
	}
	plans, err := chain.Plan(reqs)
	if err != nil {
		return nil, err
	}
	return d, r.preview(ctx, net, d, s.ID, plans, nil, s.NoForwarding)
}

func (r *Runtime) preview(ctx context.Context, net *netsetup.Host, d *DryRun, id string, plans []netsetup.Plan, before []netsetup.Attachment, noForwarding bool) error {
	opts := policy.Options{NoForwarding: noForwarding, StateDir: r.dataDir()}
	once := map[string]bool{} // tables and rules, which a second network finds there
	for _, p := range plans {
		if p.Owner = id; p.Owner == "" {
			p.Owner = "ID"
		}
		a, steps, err := chain.Preview(ctx, net, p, opts, before)
		if err != nil {
			return fmt.Errorf("%s: %w", networkOf(p), err)
		}
		before = append(before, a)
		one := DryRunOfOne{Network: a.Network, IfName: a.IfName}
		for _, c := range chain.Ordered(steps) {
			if once[c.Line] {
				continue
			}
			once[c.Line] = strings.Contains(c.Line, "\n") || strings.HasPrefix(c.Line, "nft add rule ")
			one.Commands = append(one.Commands, EquivalentLine{c.Inside, c.Line})
		}
		d.Networks = append(d.Networks, one)
	}
	return nil
}

// DryRunAttach says what AttachNetwork would do.
func (r *Runtime) DryRunAttach(ctx context.Context, id string, req netsetup.Request, noForwarding bool) (*DryRun, error) {
	c, err := r.connect(id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }()
	p, err := c.plan(ctx, &req, func(ctx context.Context, _ *netsetup.Host, dir string, req *netsetup.Request) error {
		return ipam.Preview(ctx, dir, req)
	})
	if err != nil {
		return nil, err
	}
	d := &DryRun{Namespace: c.rec.state.NetnsName, Pid: c.rec.state.Pid, Mode: namedNamespace, Networks: []DryRunOfOne{}}
	if d.Namespace == "" {
		d.Namespace, d.Mode = id, namelessNamespace
	}
	return d, r.preview(ctx, c.net, d, id, []netsetup.Plan{p}, c.rec.state.Networks, noForwarding)
}

// Script is d for sh(1). Run on a host without the container, it makes a network namespace with its networks.
func (d *DryRun) Script() string {
	var b strings.Builder
	if d.Joins != "" {
		return fmt.Sprintf("# the network namespace is %s, as it is\n", d.Joins)
	}
	fmt.Fprintf(&b, "export NETNS=%s\n", shellQuote(d.Namespace))
	switch d.Mode {
	case newNamespace:
		b.WriteString("ip netns add $NETNS\nip -n $NETNS link set lo up\n")
	case namelessNamespace:
		fmt.Fprintf(&b, "ip netns attach $NETNS %d\n", d.Pid)
	}
	for _, n := range d.Networks {
		fmt.Fprintf(&b, "# network %s, %s\n", n.Network, n.IfName)
		for _, c := range n.Commands {
			b.WriteString(shellLine(c.Inside, c.Line) + "\n")
		}
	}
	return b.String()
}

// shellLine has a command run where it belongs.
func shellLine(inside bool, line string) string {
	switch {
	case !inside:
		return line
	case strings.ContainsAny(line, "|&;<>()`\n"):
		return "ip netns exec $NETNS sh -c " + shellQuote(line)
	case strings.HasPrefix(line, "ip "):
		return "ip -n $NETNS" + strings.TrimPrefix(line, "ip")
	}
	return "ip netns exec $NETNS " + line
}

func shellQuote(s string) string {
	if CheckID(s) == nil {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// traceNetwork writes what h says of p's steps, below the lines of the host's steps.
func (r *Runtime) traceNetwork(h *netsetup.Host, p netsetup.Plan) {
	if r.Trace == nil {
		return
	}
	h.Trace = func(step string, took time.Duration, commands []netsetup.Command) {
		fmt.Fprintf(r.Trace, "trace: network %s %s %.3fms\n", p.IfName, step, float64(took.Microseconds())/1000)
		for _, c := range commands {
			for line := range strings.Lines(shellLine(c.Inside, c.Line)) {
				fmt.Fprintf(r.Trace, "trace:   %s\n", strings.TrimSuffix(line, "\n"))
			}
		}
	}
}
