package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

// The network of the growth measurement: as many addresses as a bridge has ports.
const (
	growthBridge = "growth0"
	growthList   = `{"cniVersion": "1.0.0", "name": "growth", "plugins": [{"type": "bridge", "bridge": "growth0", "isDefaultGateway": true,
"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/22"}]]}}]}`
)

// A growthPoint is what a start and the kernel's own part of it, one request that
// makes a pair of devices on the bridge, cost with so many containers held.
type growthPoint struct {
	held        int
	start, link *series
}

// A growth is the start of the first container on a bridge, and one behind many.
type growth struct{ first, last growthPoint }

// measureGrowth holds containers on a bridge between the two.
func (h *host) measureGrowth(held, rounds int) (*growth, error) {
	list := filepath.Join(h.work, "growth.conflist")
	if err := os.WriteFile(list, []byte(growthList), 0o644); err != nil {
		return nil, err
	}
	first, err := h.growthAt(list, 0, rounds)
	if err != nil {
		return nil, err
	}
	defer h.letGo("growth", held)
	if err := h.hold("growth", list, held); err != nil {
		return nil, err
	}
	last, err := h.growthAt(list, held, rounds)
	return &growth{first, last}, err
}

func (g *growth) print() {
	fmt.Printf("\n%-28s %9s %9s\n", "growth of a bridge, ms", "start", "newlink")
	for _, p := range []growthPoint{g.first, g.last} {
		fmt.Printf("%-28s %9.2f %9.2f\n", fmt.Sprintf("%d held", p.held), milliseconds(p.start.median()), milliseconds(p.link.median()))
	}
}

// verdict counts what the bare request grows by as the kernel's.
func (g *growth) verdict() verdict {
	kernels := g.last.link.median() - g.first.link.median()
	limit := g.first.start.median()*12/10 + max(kernels, 0)
	return verdict{
		text: fmt.Sprintf("behind %d containers on one bridge at most 1.2 x the first plus the kernel's own growth, %.2f ms: %.2f",
			g.last.held, milliseconds(limit), milliseconds(g.last.start.median())),
		missed: g.last.start.median() > limit,
	}
}

func (h *host) growthAt(list string, held, rounds int) (growthPoint, error) {
	p := growthPoint{held: held, start: &series{subject: subject{name: "growth", argv: h.run("--network", list, "--rootfs", h.root, "true")}}, link: &series{}}
	for i := range rounds + 1 {
		took, err := p.start.time()
		if err != nil {
			return p, err
		}
		link, err := bareLink()
		if err != nil {
			return p, err
		}
		if i > 0 { // the first makes the bridge
			p.start.samples, p.link.samples = append(p.start.samples, took), append(p.link.samples, link)
		}
	}
	return p, nil
}

// bareLink times the requests that make a pair of devices, one of them an up port of
// the bridge as a start has it, and removes them again.
func bareLink() (time.Duration, error) {
	bridge, err := netlink.LinkByName(growthBridge)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", growthBridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.NumTxQueues, attrs.NumRxQueues = "growthlink", bridge.Attrs().Index, 1, 1
	attrs.Flags = net.FlagUp
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "growthpeer", PeerNumTxQueues: 1, PeerNumRxQueues: 1}
	start := time.Now()
	if err := netlink.LinkAdd(pair); err != nil {
		return 0, fmt.Errorf("make a pair of devices: %w", err)
	}
	took := time.Since(start)
	return took, netlink.LinkDel(pair)
}
