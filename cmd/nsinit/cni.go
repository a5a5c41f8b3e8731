package main

import (
	"context"
	"fmt"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

func cniVerb() verb {
	return family("cni", "call the plugins of a CNI network for any namespace; be a CNI plugin for others",
		`What cnitool does: the plugins of a network configuration list are called one after the other, as CNI's runtimes call them, for a network namespace that is there already. Plugins are programs of --plugin-dir; those that aren't there and that nsinit has itself are nsinit.

Containers of nsinit need none of this: run --network and network attach do it in one process.`,
		func() []verb {
			return []verb{
				cniAddVerb(), cniCheckVerb(), cniDelVerb(), cniGCVerb(), cniStatusVerb(), cniVersionVerb(), cniInstallVerb(),
			}
		})
}

const cniTargets = `NETWORK is a list's name, FILE its path, with a slash. TARGET is a network namespace: a name that ip netns knows, a path, or container:ID, a running container of nsinit.`

func cniAddVerb() verb {
	return verb{
		name: "cni add", form: "[flags] NETWORK|FILE TARGET", min: 2, max: 2,
		brief: "connect a network namespace to a network, and print the result",
		about: cniTargets + `

Every plugin is called with ADD, in the order of the list. If one fails, those that were called are called with DEL. The result is kept in ` + cni.ResultDir + `, in the form of CNI's library, for check and del, those of cnitool too.`,
		examples: []example{
			{"nsinit cni add lan blue", "a namespace that ip netns add blue has made"},
			{`nsinit cni add --capability-args '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}' lan blue`, "with a published port"},
			{"nsinit cni add --ifname eth1 ./lan.conflist container:web", "a container, and a list by its file"},
		},
		setup: attachmentSetup(func(a *app, c *cniCall) (int, error) {
			if c.target.NetNS == "" {
				return exitFailure, fmt.Errorf("%s: %w", quote(c.what), c.gone)
			}
			result, err := c.runtime(a).Add(context.Background(), c.network, c.target)
			if err != nil {
				return exitFailure, err
			}
			return 0, a.printJSON(result)
		}),
	}
}

func cniCheckVerb() verb {
	return verb{
		name: "cni check", form: "[flags] NETWORK|FILE TARGET", min: 2, max: 2,
		brief: "ask the plugins whether all is as add made it",
		about: cniTargets + `

Every plugin is called with CHECK and the kept result, until one finds something: that is the error.`,
		examples: []example{{"nsinit cni check lan blue", "after something on the host has changed"}},
		setup: attachmentSetup(func(a *app, c *cniCall) (int, error) {
			return 0, c.runtime(a).Check(context.Background(), c.network, c.target)
		}),
	}
}

func cniDelVerb() verb {
	return verb{
		name: "cni del", form: "[flags] NETWORK|FILE TARGET", min: 2, max: 2,
		brief: "take a network namespace off a network",
		about: cniTargets + ` It may be gone.

Every plugin is called with DEL and the kept result, the last one first. A plugin that fails stops no other; the result stays kept then, for another try. What add was given by --args and --capability-args is remembered.`,
		examples: []example{{"nsinit cni del lan blue", "what cni add lan blue has made"}},
		setup: attachmentSetup(func(a *app, c *cniCall) (int, error) {
			return 0, c.runtime(a).Del(context.Background(), c.network, c.target)
		}),
	}
}

func cniGCVerb() verb {
	return verb{
		name: "cni gc", form: "[flags] NETWORK|FILE", min: 1, max: 2,
		brief: "remove what attachments have left whose namespace is gone",
		about: `Kept attachments of the network whose namespace is gone are taken off it by DEL. Then every plugin is called with GC, if the list's version is 1.1.0, and told the attachments that are still kept and those of nsinit's containers: whatever else it has of this network goes.

A network that other runtimes use, who keep their results elsewhere, is not to be collected here. A list that says disableGC never is. A TARGET behind the network, as cnitool wants it, says nothing.`,
		examples: []example{{"nsinit cni gc lan", "after namespaces were removed without cni del"}},
		setup: listSetup(func(a *app, c *cniCall) (int, error) {
			valid, err := a.attachmentsOf(c.network)
			if err != nil {
				return exitFailure, err
			}
			return 0, c.runtime(a).GC(context.Background(), c.network, valid)
		}),
	}
}

// attachmentsOf are those of containers on the network, which the plugins may count among theirs.
func (a *app) attachmentsOf(n *netsetup.Network) (valid []cni.AttachmentID, err error) {
	states, err := a.runtime().List()
	for _, s := range states {
		for _, at := range s.Networks {
			if at.Network == n.Name {
				valid = append(valid, cni.AttachmentID{ContainerID: s.ID, IfName: at.IfName})
			}
		}
	}
	return valid, err
}

func cniStatusVerb() verb {
	return verb{
		name: "cni status", form: "[flags] NETWORK|FILE", min: 1, max: 2,
		brief:    "ask the plugins whether an add could work",
		about:    `Every plugin is called with STATUS, until one says no: that is the error. Lists of before 1.1.0 have no such question. A TARGET behind the network, as cnitool wants it, says nothing.`,
		examples: []example{{"nsinit cni status lan", "before the first add"}},
		setup: listSetup(func(a *app, c *cniCall) (int, error) {
			return 0, c.runtime(a).Status(context.Background(), c.network)
		}),
	}
}

func cniVersionVerb() verb {
	return verb{
		name: "cni version", form: "[flags] NETWORK|FILE", min: 1, max: 2,
		brief:    "print the program of each plugin and the versions of CNI that it speaks",
		about:    `Every plugin is called with VERSION. /proc/self/exe is nsinit itself.`,
		examples: []example{{"nsinit cni version lan", "which programs a list runs"}},
		setup: listSetup(func(a *app, c *cniCall) (int, error) {
			programs, err := c.runtime(a).Programs(context.Background(), c.network)
			if err != nil {
				return exitFailure, err
			}
			return 0, a.printPrograms(programs)
		}),
	}
}
