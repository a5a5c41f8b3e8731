package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

func gcVerb() verb {
	return verb{
		name: "gc", form: "[flags]",
		brief: "remove what killed runs have left",
		about: "Works from nsinit's records and the kernel alone. Nothing of a running container is touched; one that a killed nsinit exec has left stopped runs again. It may be killed at any time and run again.",
		examples: []example{
			{"nsinit gc", "after a crash"},
			{"nsinit gc --all", "leave the host as it was before the first nsinit run"},
		},
		setup: func(a *app) ([]group, action) {
			var all bool
			groups := []group{{"Flags", []flag{
				{name: "all", short: "a", help: "also the default network's bridge, subnets and firewall table, and forwarding that nsinit switched on", set: toggle(&all)},
			}}}
			return groups, func([]string) (int, error) { return 0, a.gc(all) }
		},
	}
}

func (a *app) gc(all bool) error {
	removed, err := a.runtime().GC(context.Background(), all)
	if a.json {
		if removed == nil {
			removed = []container.Removed{}
		}
		return errors.Join(a.printJSON(removed), err)
	}
	var b strings.Builder
	kept := 0
	for _, r := range removed {
		line := r.Kind + " " + r.Name
		if r.Container != "" {
			line = r.Container + ": " + line
		}
		if r.Error == "" {
			fmt.Fprintln(&b, "removed", oneLine(line))
			continue
		}
		kept++
		fmt.Fprintf(a.stderr, "nsinit: gc: %s\n", oneLine(line+": "+r.Error))
	}
	if err == nil && kept > 0 {
		err = fmt.Errorf("%d of %d things could not be removed; run it again", kept, len(removed))
	}
	return errors.Join(a.print(b.String()), err)
}
