package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// The lines between which a document has the table.
const (
	readmeBegin = "<!-- bench -->\n"
	readmeEnd   = "<!-- /bench -->\n"
)

// A report is all that was measured.
type report struct {
	rounds   int
	series   []*series
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
(%s). The floor is a C program that makes the same network in one netlink message and
mounts next to nothing; a chain is bridge, portmap with a port, and firewall. The others:
%s, %s, %s, CNI's plugins %s.

| | ms | x floor |
| --- | --- | --- |
`, "`true`", r.rounds, runtime.NumCPU(), kernel, cgroupLayout(),
		firstLine("crun", "--version"), firstLine("runc", "--version"), firstLine("bwrap", "--version"), pluginsVersion())
	floor := find(r.series, floorName)
	sorted := slices.Clone(r.series)
	slices.SortStableFunc(sorted, func(a, b *series) int { return cmp.Compare(a.median(), b.median()) })
	for _, s := range sorted {
		name := s.name
		if name == nsinitName {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %s | %.1f | %s |\n", name, milliseconds(s.median()), ratio(s, floor))
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
