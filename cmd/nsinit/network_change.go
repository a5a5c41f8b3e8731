package main

import (
	"context"
	"fmt"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/netsetup"
)

func networkRemoveVerb() verb {
	return verb{
		name: "network rm", form: "[flags] NAME...", min: 1, max: -1,
		brief: "remove networks and what they have on the host",
		about: "Its bridge, its places in the firewall table, its leases and its file are removed. A network that containers are on is an error, unless --force deletes those first.",
		examples: []example{
			{"nsinit network rm lan", "a network that nobody uses"},
			{"nsinit network rm -f nsinit", "the default network, with all containers on it; its next user gets a new one"},
		},
		setup: func(a *app) ([]group, action) {
			var dir string
			var force bool
			groups := []group{configDirFlag(&dir)}
			groups[0].flags = append(groups[0].flags, flag{
				name: "force", short: "f", help: "end and delete the containers on it first", set: toggle(&force),
			})
			return groups, func(args []string) (int, error) {
				for _, name := range args {
					if err := a.runtime().RemoveNetwork(context.Background(), name, []string{dir}, force); err != nil {
						return exitFailure, err
					}
					if err := a.print(name + "\n"); err != nil {
						return exitFailure, err
					}
				}
				return 0, nil
			}
		},
	}
}

func networkReloadVerb() verb {
	return verb{
		name: "network reload", form: "[flags]",
		brief: "put the firewall's rules back after somebody flushed them",
		about: "The rules of all running containers, those of published ports among them, are made again from nsinit's records. Where they are still there nothing changes.",
		examples: []example{
			{"nsinit network reload", "after nft flush ruleset, or a restart of the host's nftables service"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func([]string) (int, error) { return 0, a.runtime().ReloadNetworks(context.Background()) }
		},
	}
}

func networkAttachVerb() verb {
	return verb{
		name: "network attach", form: "[flags] ID NETWORK[:OPTIONS]", min: 2, max: 2,
		brief: "connect a running container to one more network",
		about: `NETWORK is as with run --network: bridge, ptp, a list's name or file, with options behind a colon. The interface is the next ethN unless the options name it.

What it has on the host goes with detach, with the container's end, with delete and with gc. The container's /etc/hosts and /etc/resolv.conf stay as they were at its start, and so does the default route that is in use.`,
		examples: []example{
			{"nsinit network attach web lan", "the list lan of /etc/cni/net.d"},
			{"nsinit network attach web bridge:ip=10.20.0.2/24,interface_name=lan0", "with an address and a name"},
		},
		setup: func(a *app) ([]group, action) {
			var dir string
			var noForwarding, dryRun bool
			var pluginDirs []string
			groups := []group{configDirFlag(&dir)}
			groups[0].flags = append(groups[0].flags, pluginDirFlag(&pluginDirs), flag{
				name: "no-forwarding", set: toggle(&noForwarding),
				help: "fail where the network would need the host's forwarding switched on",
			}, flag{
				name: "dry-run", set: toggle(&dryRun),
				help: "print the commands of ip, nft and their like that would do the same, as a script for sh, and do nothing",
			})
			return groups, func(args []string) (int, error) {
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				return 0, a.networkAttach(args[0], args[1], dir, pluginDirs, noForwarding, dryRun)
			}
		},
	}
}

// pluginDirFlag is where CNI plugins are found that are run.
func pluginDirFlag(dirs *[]string) flag {
	return flag{
		name: "plugin-dir", arg: "DIR", repeat: true, set: appendTo(dirs, absolutePath),
		help: "where CNI plugins that nsinit doesn't have itself are looked up (default: CNI_PATH, else /opt/cni/bin)",
	}
}

func absolutePath(s string) (path string, err error) {
	err = absolute(&path)(s)
	return path, err
}

func (a *app) networkAttach(id, network, dir string, pluginDirs []string, noForwarding, dryRun bool) error {
	req, err := netsetup.ParseFlag(network, []string{dir})
	if err != nil {
		return err
	}
	req.Source, req.Runtime.PluginDirs = network, pluginDirs
	if dryRun {
		return a.dryRun(a.runtime().DryRunAttach(context.Background(), id, req, noForwarding))
	}
	made, err := a.runtime().AttachNetwork(context.Background(), id, req, noForwarding)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(made)
	}
	line := made.IfName
	for _, p := range made.Addresses {
		line += " " + p.String()
	}
	return a.print(line + "\n")
}

// dryRun prints what would be done.
func (a *app) dryRun(d *container.DryRun, err error) error {
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printJSON(d)
	}
	return a.print(d.Script())
}

func networkDetachVerb() verb {
	return verb{
		name: "network detach", form: "ID INTERFACE|NETWORK", min: 2, max: 2,
		brief: "take a running container off a network",
		about: "The interface is removed, with its addresses, routes and firewall rules; its addresses can be given to others. A network's name does if the container has one interface there. Its /etc/hosts and /etc/resolv.conf stay as they are, and a resolver that was relayed on that network can't be asked any more.",
		examples: []example{
			{"nsinit network detach web lan", "by the network"},
			{"nsinit network detach web eth1", "by the interface"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func(args []string) (int, error) {
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				gone, err := a.runtime().DetachNetwork(context.Background(), args[0], args[1])
				if err != nil {
					return exitFailure, err
				}
				if a.json {
					return 0, a.printJSON(gone)
				}
				return 0, a.print(fmt.Sprintf("%s (%s)\n", gone.IfName, gone.Network))
			}
		},
	}
}
