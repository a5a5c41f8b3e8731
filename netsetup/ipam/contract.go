// Package ipam gives containers their addresses: from the network's pool through
// the containernetworking plugins' host-local allocator and on-disk store, or as
// written (static).
package ipam

import (
	"context"
	"errors"
	"net/netip"

	"github.com/nsinit/nsinit/netsetup"
)

var errTodo = errors.New("not built yet")

// Allocate reserves the addresses of p for the interface p.IfName of container id,
// one a subnet, recorded before they are taken. It returns them with their
// gateways.
func Allocate(ctx context.Context, p netsetup.Plan, id string, record netsetup.Recorder) (addrs []netip.Prefix, gateways []netip.Addr, err error) {
	return nil, nil, errTodo
}

// Undo gives back a "lease". One that is gone, or that another container holds by
// now, is no error and is left alone.
func Undo(o netsetup.Object) error { return errTodo }

// DefaultNetwork returns the network behind `--network bridge`: its subnets overlap
// no route of the host, and are remembered in stateDir.
func DefaultNetwork(ctx context.Context, h *netsetup.Host, stateDir string) (*netsetup.Network, error) {
	return nil, errTodo
}
