package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// Check returns every difference between a and the kernel: the interface's on both sides,
// masquerading's, and that of each policy of p, which a was made of.
func Check(ctx context.Context, h *netsetup.Host, target *netsetup.NetNS, p netsetup.Plan, a netsetup.Attachment, opts policy.Options) ([]netsetup.Difference, error) {
	all, err := netsetup.Check(ctx, h, target, a)
	faults := []error{err}
	found, err := policy.Check(ctx, h, a, opts)
	all, faults = append(all, found...), append(faults, err)
	found, err = checkExternal(ctx, h, target, p, a)
	all, faults = append(all, found...), append(faults, err)
	for _, planned := range p.Policies {
		pol := PolicyOf(planned.Plugin.Type, opts)
		if pol == nil {
			continue // a real plugin
		}
		found, err := pol.Check(ctx, h, target, p, planned.Conf, a)
		if err != nil {
			err = fmt.Errorf("%s: %w", planned.Plugin.Type, err)
		}
		all, faults = append(all, found...), append(faults, err)
	}
	return all, errors.Join(faults...)
}
