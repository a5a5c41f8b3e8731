package netsetuptest

import (
	"fmt"
	"slices"
	"strings"
)

// Diff returns what differs from a to b, "" if nothing does: lines with - are only in a, with + only in b,
// and of an object that both have in different form, with ~, only what changed.
func Diff(a, b Snapshot) string {
	gone, came := minus(a, b), minus(b, a)
	var out []string
	for _, line := range gone {
		name, old := split(line)
		i := slices.IndexFunc(came, func(l string) bool { return name == nameOf(l) })
		if i < 0 {
			out = append(out, "- "+line)
			continue
		}
		_, now := split(came[i])
		out = append(out, "~ "+name+changes(old, now))
		came = slices.Delete(came, i, i+1)
	}
	for _, line := range came {
		out = append(out, "+ "+line)
	}
	slices.SortStableFunc(out, func(x, y string) int { return strings.Compare(x[2:], y[2:]) })
	return strings.Join(out, "\n")
}

// minus returns the lines of a that b lacks, counting repeated ones.
func minus(a, b []string) []string {
	have := map[string]int{}
	for _, line := range b {
		have[line]++
	}
	var out []string
	for _, line := range a {
		if have[line]--; have[line] < 0 {
			out = append(out, line)
		}
	}
	return out
}

// split cuts a line into the object's name and its values.
func split(line string) (name, values string) {
	name, values, _ = strings.Cut(line, ": ")
	return name, values
}

func nameOf(line string) string {
	name, _ := split(line)
	return name
}

// changes prints the words that differ.
func changes(old, now string) string {
	was, is := strings.Split(old, " "), strings.Split(now, " ")
	return fmt.Sprintf(": was %q, is %q", strings.Join(minus(was, is), " "), strings.Join(minus(is, was), " "))
}
