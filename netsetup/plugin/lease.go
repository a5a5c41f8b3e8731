package plugin

import (
	"context"
	"errors"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
	"github.com/nsinit/nsinit/netsetup/ipam"
)

// lease serves a plugin that leaves addresses to another one, which nsinit is here.
// Another tool's host-local may take over at any call: the leases are the record.
func (p *Plugin) lease(ctx context.Context, c *call) (result cni.Result, err error) {
	plan, err := netsetup.PlanAddresses(c.request())
	if err != nil {
		return result, invalid(err)
	}
	if held, err := ipam.Held(plan.DataDir, c.conf.Name, c.id, c.ifName); err != nil || len(held) > 0 {
		return result, errors.Join(err, cni.Errorf(cni.CodeInternal, "%s of container %s has %v already; DEL comes first", c.ifName, c.id, held))
	}
	addresses, _, err := ipam.Allocate(ctx, plan, c.id, func(netsetup.Object) error { return nil })
	if err != nil {
		return result, err
	}
	for _, a := range addresses {
		result.IPs = append(result.IPs, cni.IP{Address: a, Gateway: plan.SubnetGateway(a)})
	}
	result.Routes, result.DNS = routesOf(&plan), plan.DNS
	return result.To(c.version()), nil
}

// checkLease wants the container to have a lease.
func (p *Plugin) checkLease(c *call) error {
	plan, err := netsetup.PlanAddresses(c.request())
	if err != nil {
		return invalid(err)
	}
	if plan.IPAM == "static" {
		return nil
	}
	held, err := ipam.Held(plan.DataDir, c.conf.Name, c.id, c.ifName)
	if err == nil && len(held) == 0 {
		err = cni.Errorf(cni.CodeInternal, "%s of container %s has no lease", c.ifName, c.id)
	}
	return err
}
