package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nsinit/nsinit/netsetup"
)

// KindForward has in Name a device on the host by which containers are reached with
// their own addresses, with the same in IfName if it outlives the container.
const KindForward = "forward"

// Forward sees to it that the host is the router that a's network has for a gateway,
// without masquerading: both ways, since others may have routes to its containers. A
// host that forwards by its own will is left as it is, and so is any with
// opt.NoForwarding: the network ends at the host then. What it changes is recorded, and
// undone, as with Masquerade.
func Forward(ctx context.Context, h *netsetup.Host, a netsetup.Attachment, owner string, opt Options, record netsetup.Recorder) error {
	l, err := linkOf(a)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	if opt.NoForwarding || l.byHostsWill(opt) {
		return nil
	}
	o := netsetup.Object{Kind: KindForward, Network: l.network, Name: l.device, Owner: owner}
	if l.lasting {
		o.IfName = l.device
	}
	if err := record(o); err != nil {
		return fmt.Errorf("forwarding: %s: record: %w", o.Name, err)
	}
	return l.admit(ctx, h, "forwarding", elementsFor(o), opt)
}

// admit puts e into the table and has the host forward for l. Where that is new to the
// host, foreign tables that drop are named. what is for errors.
func (l hostLink) admit(ctx context.Context, h *netsetup.Host, what string, e elements, opt Options) error {
	made, err := addElements(ctx, l.network, e, opt)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return l.forward(ctx, h, made, opt)
}

// forward has the host forward for l; made says that the table is new.
func (l hostLink) forward(ctx context.Context, h *netsetup.Host, made bool, opt Options) error {
	changed, err := openForwarding(ctx, h, l, opt)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	if made || changed {
		warnForeign(ctx, h, l.device)
	}
	return nil
}

// byHostsWill tells whether the host forwards l's families altogether, and nsinit has
// changed nothing of it.
func (l hostLink) byHostsWill(opt Options) bool {
	if _, err := os.Lstat(ledgerPath(opt.StateDir)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return (!l.v4 || forwardsAll(4)) && (!l.v6 || forwardsAll(6))
}

func (e *elements) takeForward(o netsetup.Object) {
	e.devices = addName(e.devices, o.Name)
	e.routed = addName(e.routed, o.Name)
}

// forwarded are the elements of a device that goes with its container. A bridge stays in the
// sets: it may have others.
func (t table) forwarded(o netsetup.Object) []elementChange {
	if o.IfName != "" {
		return nil
	}
	return []elementChange{remove(t.routed, nameElement(o.Name)), remove(t.devices, nameElement(o.Name))}
}
