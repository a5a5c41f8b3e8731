package main

import "context"

func deleteVerb() verb {
	return verb{
		name: "delete", form: "[flags] ID", min: 1, max: 1,
		brief: "remove a container and what it holds",
		about: "A container that has ended is removed, with its addresses, firewall rules, network namespace name, cgroup and record. One that runs is an error, unless --force ends it first.",
		examples: []example{
			{"nsinit delete web", "after its end"},
			{"nsinit delete -f web", "now"},
		},
		setup: func(a *app) ([]group, action) {
			var force bool
			groups := []group{{"Flags", []flag{
				{name: "force", short: "f", help: "end it first; a container that isn't there is no error", set: toggle(&force)},
			}}}
			return groups, func(args []string) (int, error) {
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				return 0, a.runtime().Delete(context.Background(), args[0], force)
			}
		},
	}
}
