package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The lines between which a document has the table.
const (
	readmeBegin = "<!-- bench -->\n"
	readmeEnd   = "<!-- /bench -->\n"
)

// A report is all that was measured.
type report struct {
	rounds   int
	rest     time.Duration
	tables   []table
	growth   *growth // nil: not measured
	verdicts []verdict
}

// write puts the report into the document at path, between its two lines.
func (r report) write(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), readmeBegin)
	_, after, ok2 := strings.Cut(rest, readmeEnd)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: has no lines %s and %s, between which the table goes", path, strings.TrimSpace(readmeBegin), strings.TrimSpace(readmeEnd))
	}
	return os.WriteFile(path, []byte(before+readmeBegin+r.markdown()+readmeEnd+after), 0o644)
}

func (r report) markdown() string {
	var b strings.Builder
	kernel, _, _ := strings.Cut(firstLine("uname", "-sr"), "-")
	fmt.Fprintf(&b, `From start to exit, %s from a busybox root file system, cleaned up afterwards: medians of %d interleaved
rounds, in milliseconds, on %d processors with %s and the same cgroups for everyone
(%s). At rest, each start comes %s after the one before, as a person's do and most of an engine's;
in a row they follow each other at once, as in a suite of tests. The floor is a C program that makes the same
network in one netlink message and mounts next to nothing; a chain is bridge, portmap with a port, and firewall. The
others: %s, %s, %s, CNI's plugins %s.

| | at rest | x floor | in a row | x floor |
| --- | --- | --- | --- | --- |
`, "`true`", r.rounds, runtime.NumCPU(), kernel, cgroupLayout(), r.rest,
		firstLine("crun", "--version"), firstLine("runc", "--version"), firstLine("bwrap", "--version"), pluginsVersion())
	sorted := slices.Clone(r.tables[0].series)
	slices.SortStableFunc(sorted, func(a, b *series) int { return cmp.Compare(a.median(), b.median()) })
	for _, s := range sorted {
		name := s.name
		if name == nsinitName {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, t := range r.tables {
			of := find(t.series, s.name)
			fmt.Fprintf(&b, " %.1f | %s |", milliseconds(of.median()), ratio(of, find(t.series, floorName)))
		}
		b.WriteString("\n")
	}
	b.WriteString("\nWhat we want of it:\n\n")
	for _, v := range r.verdicts {
		fmt.Fprintf(&b, "- %s\n", v)
	}
	if r.growth != nil {
		fmt.Fprintf(&b, "\nBehind %d containers on one bridge a start took %.1f ms where the first took %.1f; the kernel's own RTM_NEWLINK\ngrew from %.2f to %.2f.\n",
			r.growth.last.held, milliseconds(r.growth.last.start.median()), milliseconds(r.growth.first.start.median()),
			milliseconds(r.growth.first.link.median()), milliseconds(r.growth.last.link.median()))
	}
	b.WriteString("\n`hack/bench -growth 900` measures on your machine, with `-readme README.md` into this file.\n")
	return b.String()
}
