package main

func stateVerb() verb {
	return verb{
		name: "state", form: "ID", min: 1, max: 1,
		brief: "print what is known of a container, as JSON",
		about: "The JSON is the state of the OCI runtime specification, and in it what nsinit adds: the networks with their addresses, the cgroup, the arguments.",
		examples: []example{
			{"nsinit state web | jq .status", "creating, running or stopped"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func(args []string) (int, error) {
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				state, err := a.runtime().State(args[0])
				if err != nil {
					return exitFailure, err
				}
				return 0, a.printJSON(state)
			}
		},
	}
}
