package netsetup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// PlanAll validates all requests of one container together, numbers the
// interfaces that have no name (eth0, eth1, ...), and returns every fault, a line
// each. Every request has its network: see ipam.Fill. With faults the plans hold
// what could be read, for whoever looks for the faults of the networks' further plugins.
func PlanAll(reqs []Request) ([]Plan, error) {
	reqs = slices.Clone(reqs)
	if err := checkAlone(reqs); err != nil {
		return nil, err
	}
	nameInterfaces(reqs)
	faults := checkIfNames(reqs)
	plans := make([]Plan, len(reqs))
	for i, r := range reqs {
		s, err := StrategyOf(r.Strategy)
		if err == nil {
			plans[i], err = s.Plan(r)
		}
		plans[i].Network = r.Network
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return plans, err
	}
	return plans, checkPlans(plans)
}

// where says where r was written.
func (r *Request) where() string {
	if r.Source != "" {
		return r.Source
	}
	return "network " + strconv.Quote(r.Strategy)
}

// fileName names the file that r's network is written in, as a confReader does.
func (r *Request) fileName() string {
	switch {
	case r.Network == nil:
		return r.where()
	case r.Network.Source == "":
		return "network " + r.Network.Name
	}
	return r.Network.Source
}

// checkAlone refuses another network beside a namespace that is joined, the
// host's, or none: such a namespace is left as it is.
func checkAlone(reqs []Request) error {
	if len(reqs) < 2 {
		return nil
	}
	for _, r := range reqs {
		switch r.Strategy {
		case "netns", "container", "host", "none":
			return fmt.Errorf("%s: stands alone, and %d networks are asked for; leave the others out", r.where(), len(reqs))
		}
	}
	return nil
}

// hasInterface says whether r gives the container an interface of its own.
func hasInterface(r *Request) bool { return r.Strategy != "netns" && r.Strategy != "loopback" }

// nameInterfaces gives each interface without a name the next ethN that nobody
// asks for.
func nameInterfaces(reqs []Request) {
	taken := make(map[string]bool)
	for i := range reqs {
		taken[reqs[i].IfName] = true
	}
	n := 0
	for i := range reqs {
		if reqs[i].IfName != "" || !hasInterface(&reqs[i]) {
			continue
		}
		for taken["eth"+strconv.Itoa(n)] {
			n++
		}
		reqs[i].IfName = "eth" + strconv.Itoa(n)
		n++
	}
}

// checkIfNames finds names that two requests ask for.
func checkIfNames(reqs []Request) (faults []error) {
	for i := range reqs {
		for j := range i {
			if reqs[i].IfName == reqs[j].IfName && !strings.Contains(reqs[i].IfName, "%d") && hasInterface(&reqs[i]) && hasInterface(&reqs[j]) {
				faults = append(faults, fmt.Errorf("%s: interface %s: network %d has it already (%s); give another interface_name",
					reqs[i].where(), quoted(reqs[i].IfName), j+1, reqs[j].where()))
			}
		}
	}
	return faults
}

// checkPlans finds what two networks of one container can't share: an address,
// a MAC address on one bridge, and subnets of different networks that overlap.
func checkPlans(plans []Plan) error {
	var faults []error
	for i := range plans {
		for j := range i {
			faults = append(faults, checkPair(&plans[j], &plans[i]))
		}
	}
	return errors.Join(faults...)
}

func checkPair(a, b *Plan) error {
	for _, p := range a.IPs {
		if i := slices.IndexFunc(b.IPs, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }); i >= 0 {
			return fmt.Errorf("%s: address %s: on %s already; give %s another", b.where(), p.Addr(), a.IfName, b.IfName)
		}
	}
	if a.MAC != "" && a.MAC == b.MAC && a.Bridge == b.Bridge {
		return fmt.Errorf("%s: mac %s: on %s already, in the same network; leave it out for one of its own", b.where(), b.MAC, a.IfName)
	}
	if a.Network == nil || b.Network == nil || a.Network.Name == b.Network.Name {
		return nil
	}
	for _, s := range a.Subnets {
		for _, t := range b.Subnets {
			if s.Prefix.Overlaps(t.Prefix) {
				return fmt.Errorf("%s: subnet %s: overlaps %s of network %s; one container can't be in both", b.where(), t.Prefix, s.Prefix, a.Network.Name)
			}
		}
	}
	return nil
}
