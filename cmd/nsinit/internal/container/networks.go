package container

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
)

// A NetworkInfo is what a network configuration list means, and who uses it.
type NetworkInfo struct {
	Name       string            `json:"name"`
	Source     string            `json:"source"`
	Default    bool              `json:"default"` // nsinit's own, behind --network bridge or ptp
	Types      []string          `json:"types"`
	Bridge     string            `json:"bridge,omitempty"`
	MTU        int               `json:"mtu,omitempty"` // 0 = the uplink's
	IPAM       string            `json:"ipam,omitempty"`
	Subnets    []NetworkSubnet   `json:"subnets"`
	Masquerade bool              `json:"masquerade"`
	Users      []NetworkUser     `json:"users"`
	Leases     []ipam.Lease      `json:"leases"` // of host-local, with those of other tools
	Faults     []string          `json:"faults,omitempty"`
	Hidden     string            `json:"hiddenBy,omitempty"` // a file of the same name that is found before
	List       *netsetup.Network `json:"list,omitempty"`
}

// A NetworkSubnet is one pool of a network.
type NetworkSubnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// A NetworkUser is an interface of a container on a network.
type NetworkUser struct {
	Container string         `json:"container"`
	IfName    string         `json:"ifName"`
	Addresses []netip.Prefix `json:"addresses"`
}

// Networks returns all networks of the configuration directories dirs, in the order of the search, and
// behind them the default ones, as far as they were chosen.
func (r *Runtime) Networks(dirs []string) ([]NetworkInfo, error) {
	states, err := r.List()
	if err != nil {
		return nil, err
	}
	list := []NetworkInfo{}
	for _, l := range netsetup.ListNetworks(dirs) {
		info := NetworkInfo{Source: l.File, Hidden: l.Hidden, Faults: lines(l.Err)}
		if l.Network != nil {
			info.describe(l.Network, states)
		}
		list = append(list, info)
	}
	defaults, err := ipam.Defaults(r.dataDir())
	for _, n := range defaults {
		info := NetworkInfo{Default: true}
		info.describe(n, states)
		list = append(list, info)
	}
	return list, err
}

// Network returns the network name, or that of a path. One of the default networks that isn't chosen yet is not found.
func (r *Runtime) Network(name string, dirs []string) (*NetworkInfo, error) {
	states, err := r.List()
	if err != nil {
		return nil, err
	}
	info := &NetworkInfo{}
	n, err := r.findNetwork(name, dirs)
	if err != nil {
		return nil, err
	}
	info.Default = n.Default
	info.describe(n.Network, states)
	return info, nil
}

type foundNetwork struct {
	*netsetup.Network
	Default bool
}

// findNetwork looks in dirs and then among the default networks, which --network can't name otherwise.
func (r *Runtime) findNetwork(name string, dirs []string) (foundNetwork, error) {
	n, err := netsetup.LoadNetwork(name, dirs)
	if err == nil || !errors.Is(err, os.ErrNotExist) || strings.Contains(name, "/") {
		return foundNetwork{Network: n}, err
	}
	defaults, defaultErr := ipam.Defaults(r.dataDir())
	for _, d := range defaults {
		if d.Name == name {
			return foundNetwork{d, true}, nil
		}
	}
	return foundNetwork{}, errors.Join(err, defaultErr)
}

func (i *NetworkInfo) describe(n *netsetup.Network, states []State) {
	i.Name, i.Source, i.List = n.Name, n.Source, n
	for _, p := range n.Plugins {
		i.Types = append(i.Types, p.Type)
	}
	i.Subnets, i.Users, i.Leases = []NetworkSubnet{}, usersOf(n.Name, states), []ipam.Lease{}
	if len(n.Plugins) == 0 {
		return
	}
	plans, err := chain.Plan([]netsetup.Request{{Network: n, Strategy: n.Plugins[0].Type, Source: n.Source}})
	if err != nil {
		if len(i.Faults) == 0 {
			i.Faults = lines(err)
		}
		return
	}
	p := plans[0]
	i.Bridge, i.MTU, i.IPAM, i.Masquerade = p.Bridge, p.MTU, p.IPAM, p.Masquerade
	for _, s := range p.Subnets {
		i.Subnets = append(i.Subnets, NetworkSubnet{s.Prefix, s.Gateway})
	}
	if leases, err := ipam.Leases(n.Name, p.DataDir); err != nil {
		i.Faults = append(i.Faults, lines(err)...)
	} else {
		i.Leases = append(i.Leases, leases...)
	}
}

// usersOf are the interfaces of containers on the network.
func usersOf(network string, states []State) []NetworkUser {
	users := []NetworkUser{}
	for _, s := range states {
		for _, a := range s.Networks {
			if a.Network == network {
				users = append(users, NetworkUser{s.ID, a.IfName, a.Addresses})
			}
		}
	}
	return users
}

// lines are the faults of err, one each.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return slices.Compact(strings.Split(err.Error(), "\n"))
}
