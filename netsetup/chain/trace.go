package chain

import (
	"time"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A tracer tells a Host's Trace of each step. One that nobody listens to costs nothing.
type tracer struct {
	tell  func(step string, took time.Duration, commands []netsetup.Command)
	since time.Time
	ahead []netsetup.Command // of the next step, as the host was before it
}

func trace(h *netsetup.Host) *tracer {
	if h == nil || h.Trace == nil {
		return &tracer{}
	}
	return &tracer{tell: h.Trace, since: time.Now()}
}

// step says that a step is done.
func (t *tracer) step(name string, commands []netsetup.Command) {
	if t.tell == nil {
		return
	}
	t.tell(name, time.Since(t.since), append(t.ahead, commands...))
	t.ahead, t.since = nil, time.Now()
}

func (t *tracer) strategy(p netsetup.Plan, a netsetup.Attachment) {
	if t.tell == nil {
		return
	}
	var commands []netsetup.Command
	if s, err := netsetup.StrategyOf(p.Strategy); err == nil {
		commands = s.Commands(p, a)
	}
	t.step(p.Strategy, commands)
}

func (t *tracer) policy(p netsetup.Plan, planned netsetup.PlannedPolicy, a netsetup.Attachment) {
	if t.tell == nil {
		return
	}
	var commands []netsetup.Command
	if pol := PolicyOf(planned.Plugin.Type, policy.Options{}); pol != nil {
		commands = pol.Commands(p, planned.Conf, a)
	}
	t.step(planned.Plugin.Type, commands)
}

// look asks what the host's policy will do, before it is done.
func (t *tracer) look(a netsetup.Attachment, opts policy.Options) {
	if t.tell == nil {
		return
	}
	commands, err := policy.Commands(a, opts)
	if err == nil {
		t.ahead, _ = policy.Tables(commands)
		t.ahead = append(t.ahead, commands...)
	}
	t.since = time.Now()
}

// hostPolicy says that it is done, if there was any.
func (t *tracer) hostPolicy(a netsetup.Attachment) {
	if len(t.ahead) > 0 || a.Masquerade || a.Routed {
		t.step(hostPolicy(a), nil)
	}
}
