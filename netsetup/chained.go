package netsetup

import (
	"context"
	"net/netip"
)

// A Policy is one way in which a further plugin of a network's list changes an
// interface, in process: CNI's chained plugins. Plan, Attach, Check and Commands
// are the host half; the container half is what Configure finds in the
// Attachment, to which Attach adds a field of its own.
type Policy interface {
	// Plan validates plugin, which stands behind the first in the list of p's
	// network, and what p's request asks of it. It doesn't ask the kernel, and
	// returns all faults at once, each with the file and the key. What it returns is
	// handed to the other methods as conf.
	Plan(p Plan, plugin Plugin) (conf any, err error)
	// Attach changes what a describes, which the plugins before it in the list made.
	// It runs on the host, before Configure. What it makes dies with target, or is
	// recorded first.
	Attach(ctx context.Context, h *Host, target *NetNS, p Plan, conf any, a *Attachment, record Recorder) error
	// Check returns every difference between a and the kernel that is this policy's.
	Check(ctx context.Context, h *Host, target *NetNS, p Plan, conf any, a Attachment) ([]Difference, error)
	// Commands returns what Attach and Configure do, in the words of iproute2 and
	// nftables.
	Commands(p Plan, conf any, a Attachment) []Command
}

// A PlannedPolicy is a policy with its place in a plan.
type PlannedPolicy struct {
	Plugin Plugin // of the list, with its keys as they were written
	Conf   any    // what the policy's Plan made of it; nil: the real plugin runs
}

// A Command is what a step does, in the words of ip(8), bridge(8), tc(8), nft(8)
// and sysctl(8). Where it stands for the name of the container's namespace under
// /run/netns it says $NETNS.
type Command struct {
	Inside bool   // runs in the container's namespace, the others on the host
	Early  bool   // inside: comes before the interface is set up, whatever step does that
	Line   string // for sh(1)
}

// Runtime is what whoever starts the container asks of a network's plugins: CNI's
// capability arguments (conventions, "Dynamic Plugin specific fields") without
// ips and mac, which a Request has itself, and CNI_ARGS.
type Runtime struct {
	PortMappings []PortMapping     `json:"portMappings,omitzero"`
	Bandwidth    Bandwidth         `json:"bandwidth,omitzero"`
	IPRanges     [][]Subnet        `json:"ipRanges,omitzero"`
	DNS          DNS               `json:"dns,omitzero"`
	Aliases      []string          `json:"aliases,omitzero"`
	Args         map[string]string `json:"args,omitzero"`       // CNI_ARGS
	DeviceID     string            `json:"deviceID,omitzero"`   // host-device: a PCI or auxiliary device
	PluginDirs   []string          `json:"pluginDirs,omitzero"` // where plugins that are run lie; nil = CNI_PATH, else /opt/cni/bin
}

// A PortMapping publishes ports of the container on the host.
type PortMapping struct {
	HostPort      int        `json:"hostPort"`        // 1 to 65535
	ContainerPort int        `json:"containerPort"`   // 1 to 65535
	Count         int        `json:"count,omitzero"`  // so many ports from both on; 0 = 1
	Protocol      string     `json:"protocol"`        // "tcp", "udp" or "sctp"
	HostIP        netip.Addr `json:"hostIP,omitzero"` // zero: all addresses of the host
}

// Bandwidth limits what an interface carries. A zero rate sets no limit.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitzero"`  // to the container, bits a second
	IngressBurst uint64 `json:"ingressBurst,omitzero"` // bits
	EgressRate   uint64 `json:"egressRate,omitzero"`   // from the container, bits a second
	EgressBurst  uint64 `json:"egressBurst,omitzero"`  // bits
}
