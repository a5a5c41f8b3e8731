package main

import (
	"context"
)

func doctorVerb() verb {
	return verb{
		name: "doctor", form: "[flags]",
		brief: "look for what containers would trip over on this host",
		about: `Looks at the kernel, its device types, cgroups, forwarding, routes from router advertisements, tables of other firewalls, networks, and what earlier containers have left. Each finding comes with its remedy. Nothing is changed: device types are tried in a network namespace that is gone afterwards.

Exit code 0: no problem, though there may be notes; 1: a problem at least; 125: it could not look.`,
		examples: []example{
			{"nsinit doctor", "before the first container, and after one that failed"},
			{"nsinit doctor --json | jq '.[] | select(.problem)'", "problems alone"},
		},
		setup: func(a *app) ([]group, action) {
			var dir string
			var pluginDirs []string
			groups := []group{configDirFlag(&dir)}
			groups[0].flags = append(groups[0].flags, pluginDirFlag(&pluginDirs))
			return groups, func([]string) (int, error) { return a.doctor(dir, a.pluginDirs(pluginDirs)) }
		},
	}
}

// exitProblem is the doctor's exit code when something is wrong.
const exitProblem = 1

func (a *app) doctor(dir string, pluginDirs []string) (int, error) {
	findings := a.runtime().Doctor(context.Background(), []string{dir}, pluginDirs)
	code := 0
	rows := [][]string{{"", "CHECK", "FINDING"}}
	for _, f := range findings {
		word := "ok"
		switch {
		case f.Problem:
			word, code = "problem", exitProblem
		case f.Remedy != "":
			word = "note"
		}
		rows = append(rows, []string{word, f.Check, oneLine(f.Says)})
		if f.Remedy != "" {
			rows = append(rows, []string{"", "", "  remedy: " + oneLine(f.Remedy)})
		}
	}
	if a.json {
		return code, a.printJSON(findings)
	}
	var paint func(int, int, string) string
	if a.colour() {
		paint = paintFinding
	}
	return code, a.print(table(rows, paint))
}

// paintFinding has problems in red and notes in yellow.
func paintFinding(_, column int, cell string) string {
	if column != 0 {
		return cell
	}
	switch cell {
	case "problem":
		return "\x1b[31m" + cell + "\x1b[0m"
	case "note":
		return "\x1b[33m" + cell + "\x1b[0m"
	case "ok":
		return "\x1b[32m" + cell + "\x1b[0m"
	}
	return cell
}
