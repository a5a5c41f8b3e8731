// Package policy applies what a network asks of the host's firewall and forwarding,
// over nftables by netlink, in a table of nsinit's own.
package policy

import (
	"context"
	"errors"

	"github.com/nsinit/nsinit/netsetup"
)

var errTodo = errors.New("not built yet")

// Options are the user's wishes.
type Options struct {
	NoForwarding bool   // refuse instead of changing the host's forwarding
	StateDir     string // where changes to the host that outlive containers are recorded
}

// Masquerade lets the addresses of a out with the host's address.
func Masquerade(ctx context.Context, h *netsetup.Host, a netsetup.Attachment, owner string, opt Options, record netsetup.Recorder) error {
	return errTodo
}

// Undo removes one object of the kinds that this package records: "masquerade", "resolver".
func Undo(ctx context.Context, h *netsetup.Host, o netsetup.Object) error { return errTodo }

// UndoHost gives back what was changed of the host itself: forwarding, the table. It is
// for `gc --all`.
func UndoHost(ctx context.Context, h *netsetup.Host, opt Options) error { return errTodo }
