package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

func listVerb() verb {
	return verb{
		name: "list", form: "[flags]",
		brief: "list the containers",
		about: "Containers are listed by name: those that run, and those that have ended but still hold something.",
		examples: []example{
			{"nsinit list", "a table"},
			{"nsinit kill $(nsinit list -q)", "the ids alone, for other commands"},
			{"nsinit list --json | jq '.[].networks'", "everything that is known"},
		},
		setup: func(a *app) ([]group, action) {
			var quiet bool
			groups := []group{{"Flags", []flag{
				{name: "quiet", short: "q", help: "print ids only", set: toggle(&quiet)},
			}}}
			return groups, func([]string) (int, error) { return 0, a.list(quiet) }
		},
	}
}

func (a *app) list(quiet bool) error {
	states, err := a.runtime().List()
	if err != nil {
		return err
	}
	switch {
	case quiet && a.json:
		return a.printJSON(ids(states))
	case quiet:
		var b strings.Builder
		for _, id := range ids(states) {
			b.WriteString(id + "\n")
		}
		return a.print(b.String())
	case a.json:
		if states == nil {
			states = []container.State{}
		}
		return a.printJSON(states)
	}
	var paint func(int, int, string) string
	if a.colour() {
		paint = paintStatus
	}
	return a.print(table(listRows(states, time.Now()), paint))
}

func ids(states []container.State) []string {
	ids := make([]string, 0, len(states))
	for _, s := range states {
		ids = append(ids, s.ID)
	}
	return ids
}

func listRows(states []container.State, now time.Time) [][]string {
	rows := [][]string{{"ID", "STATUS", "PID", "AGE", "ADDRESSES", "COMMAND"}}
	withPorts := slices.ContainsFunc(states, func(s container.State) bool { return ports(s) != "-" })
	if withPorts {
		rows[0] = slices.Insert(rows[0], 5, "PORTS")
	}
	for _, s := range states {
		pid := "-"
		if s.Pid > 0 {
			pid = strconv.Itoa(s.Pid)
		}
		row := []string{s.ID, s.Status, pid, age(now.Sub(s.Created)), addresses(s), command(s.Args)}
		if withPorts {
			row = slices.Insert(row, 5, ports(s))
		}
		rows = append(rows, row)
	}
	return rows
}

// ports are what is published, as --publish has it.
func ports(s container.State) string {
	var all []string
	for _, n := range s.Networks {
		for _, m := range n.Ports {
			all = append(all, m.String())
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ",")
}

// paintStatus colours the second column: green runs, yellow is on its way.
func paintStatus(row, column int, cell string) string {
	if row == 0 || column != 1 {
		return cell
	}
	switch cell {
	case "running":
		return "\x1b[32m" + cell + "\x1b[0m"
	case "stopped":
		return "\x1b[2m" + cell + "\x1b[0m"
	}
	return "\x1b[33m" + cell + "\x1b[0m"
}

// age rounds a duration down to its largest unit.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s" // the clock may have been set back
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

func addresses(s container.State) string {
	var all []string
	for _, n := range s.Networks {
		for _, p := range n.Addresses {
			all = append(all, p.Addr().String())
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ",")
}

// command is the command line, cut, on one line whatever is in it.
func command(args []string) string {
	const width = 40
	s := oneLine(strings.Join(args, " "))
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-3]) + "..."
}
