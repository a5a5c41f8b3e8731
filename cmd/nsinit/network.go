package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

func networkVerb() verb {
	return family("network", "networks: list, make, remove, check; connect running containers",
		`Networks are CNI network configuration lists: files, by default in /etc/cni/net.d, where podman, nerdctl and cnitool have theirs. The default networks behind --network bridge and --network ptp are nsinit's own.`,
		func() []verb {
			return []verb{
				networkListVerb(), networkShowVerb(), networkAddVerb(), networkRemoveVerb(), networkCheckVerb(),
				networkReloadVerb(),
				networkAttachVerb(), networkDetachVerb(),
			}
		})
}

// configDirFlag is where lists are looked up.
func configDirFlag(dir *string) group {
	*dir = networkConfigDir
	return group{"Flags", []flag{{
		name: "network-config-dir", arg: "DIR", set: absolute(dir),
		help: "where CNI network lists are looked up (default " + networkConfigDir + ")",
	}}}
}

func networkListVerb() verb {
	return verb{
		name: "network ls", form: "[flags]",
		brief: "list the networks",
		about: "All lists on the search path in the order of the search, and behind them the default networks, as far as they were chosen: that is done at the first start that needs one.",
		examples: []example{
			{"nsinit network ls", "a table"},
			{"nsinit network ls --json | jq '.[] | select(.users == [])'", "those that nobody uses"},
		},
		setup: func(a *app) ([]group, action) {
			var dir string
			var quiet bool
			groups := []group{configDirFlag(&dir)}
			groups[0].flags = append(groups[0].flags, flag{name: "quiet", short: "q", help: "print names only", set: toggle(&quiet)})
			return groups, func([]string) (int, error) { return 0, a.networkList(dir, quiet) }
		},
	}
}

func (a *app) networkList(dir string, quiet bool) error {
	list, err := a.runtime().Networks([]string{dir})
	if err != nil {
		return err
	}
	switch {
	case a.json && !quiet:
		for i := range list {
			list[i].List = nil
		}
		return a.printJSON(list)
	case quiet:
		var b strings.Builder
		for _, n := range list {
			if n.Hidden == "" && n.Name != "" {
				b.WriteString(n.Name + "\n")
			}
		}
		return a.print(b.String())
	}
	var paint func(int, int, string) string
	if a.colour() {
		paint = paintFault
	}
	return a.print(table(networkRows(list), paint))
}

func networkRows(list []container.NetworkInfo) [][]string {
	rows := [][]string{{"NAME", "TYPES", "SUBNETS", "USERS", "SOURCE"}}
	for _, n := range list {
		source := n.Source
		switch {
		case len(n.Faults) > 0:
			source = "faulty: " + n.Faults[0] // which names the file
		case n.Hidden != "":
			source += " (hidden by " + n.Hidden + ")"
		case n.Default:
			source = "default"
		}
		rows = append(rows, []string{
			dash(n.Name), dash(strings.Join(n.Types, ",")), subnetList(n.Subnets), strconv.Itoa(len(n.Users)), oneLine(source),
		})
	}
	return rows
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func subnetList(list []container.NetworkSubnet) string {
	all := make([]string, len(list))
	for i, s := range list {
		all[i] = s.Prefix.String()
	}
	return dash(strings.Join(all, ","))
}

// paintFault has faults in red.
func paintFault(row, column int, cell string) string {
	if row > 0 && column == 4 && strings.HasPrefix(cell, "faulty: ") {
		return "\x1b[31m" + cell + "\x1b[0m"
	}
	return cell
}

func networkShowVerb() verb {
	return verb{
		name: "network show", form: "[flags] NAME|FILE", min: 1, max: 1,
		brief: "print a network, what it means and who uses it",
		about: "The list is printed with the plugins of its folder, if it has one, behind what it means to nsinit.",
		examples: []example{
			{"nsinit network show lan", "a list in /etc/cni/net.d"},
			{"nsinit network show nsinit", "the default network behind --network bridge"},
		},
		setup: func(a *app) ([]group, action) {
			var dir string
			groups := []group{configDirFlag(&dir)}
			return groups, func(args []string) (int, error) { return 0, a.networkShow(args[0], dir) }
		},
	}
}

func (a *app) networkShow(name, dir string) error {
	n, err := a.runtime().Network(name, []string{dir})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(n)
	}
	list, err := json.MarshalIndent(n.List, "", "  ")
	if err != nil {
		return err
	}
	return a.print(table(meaning(n), nil) + "\n" + string(list) + "\n")
}

// meaning is what a list says, in words.
func meaning(n *container.NetworkInfo) [][]string {
	rows := [][]string{{"name:", n.Name}, {"source:", n.Source}, {"types:", strings.Join(n.Types, ", ")}}
	add := func(key, value string) {
		if value != "" {
			rows = append(rows, []string{key, oneLine(value)})
		}
	}
	add("bridge:", n.Bridge)
	for _, s := range n.Subnets {
		text := s.Prefix.String()
		if s.Gateway.IsValid() {
			text += ", gateway " + s.Gateway.String()
		}
		add("subnet:", text)
	}
	add("addresses:", n.IPAM)
	if n.MTU > 0 {
		add("mtu:", strconv.Itoa(n.MTU))
	}
	if n.Masquerade {
		add("masquerade:", "leaves with the host's address")
	}
	for _, u := range n.Users {
		words := []string{u.Container, u.IfName}
		for _, p := range u.Addresses {
			words = append(words, p.Addr().String())
		}
		add("used by:", strings.Join(words, " "))
	}
	if others := len(n.Leases) - addressCount(n); others > 0 {
		add("leases:", fmt.Sprintf("%d more, of other tools or of killed containers (nsinit gc)", others))
	}
	for _, f := range n.Faults {
		add("fault:", f)
	}
	return rows
}

// addressCount is how many of the leases belong to containers that are known.
func addressCount(n *container.NetworkInfo) (count int) {
	for _, l := range n.Leases {
		for _, u := range n.Users {
			if u.Container == l.Owner {
				count++
				break
			}
		}
	}
	return count
}

func networkCheckVerb() verb {
	return verb{
		name: "network check", form: "ID", min: 1, max: 1,
		brief: "compare a running container's networks with the kernel",
		about: `Every interface and what its network's policies have made are compared with the kernel, on the host and inside.

Exit code 0: all is as it was made; 1: there are differences, one a line; 125: it could not be told.`,
		examples: []example{
			{"nsinit network check web", "after something on the host has changed"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func(args []string) (int, error) {
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				return a.networkCheck(args[0])
			}
		},
	}
}

// exitDifferent is the exit code of a check that found something.
const exitDifferent = 1

func (a *app) networkCheck(id string) (int, error) {
	list, err := a.runtime().CheckNetworks(context.Background(), id)
	if err != nil {
		return exitFailure, err
	}
	code := 0
	var b strings.Builder
	for _, c := range list {
		if len(c.Differences) == 0 {
			fmt.Fprintf(&b, "%s (%s): as it was made\n", c.IfName, c.Network)
		}
		for _, d := range c.Differences {
			code = exitDifferent
			fmt.Fprintf(&b, "%s (%s): %s\n", c.IfName, c.Network, oneLine(d.String()))
		}
	}
	if a.json {
		return code, a.printJSON(list)
	}
	return code, a.print(b.String())
}
