// Command benchmark measures what starting a container costs: nsinit, its peers
// and a floor, interleaved. It is run by hack/bench, which builds what it needs
// and gives it namespaces of its own; it changes the network that it finds.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// options are the command's flags.
type options struct {
	dir     string // the folder with nsinit, floor and cni/
	samples string // where every sample goes, in benchstat's format
	only    string // part of the names of the subjects to run; empty: all
	rounds  int
	warmup  int    // rounds that aren't counted
	held    int    // containers held on nsinit's bridge meanwhile
	growth  int    // containers that the last one is started behind; 0: not measured
	readme  string // the document with the table; empty: none
	assert  bool   // whether a missed target is a failure
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "`folder` with nsinit, floor and cni/")
	flag.StringVar(&o.samples, "samples", "", "`file` for every sample, in benchstat's format")
	flag.StringVar(&o.only, "only", "", "run only subjects whose name contains this `text`")
	flag.IntVar(&o.rounds, "rounds", 30, "interleaved rounds")
	flag.IntVar(&o.warmup, "warmup", 3, "rounds before those that count")
	flag.IntVar(&o.held, "held", 0, "detached containers held on nsinit's bridge meanwhile")
	flag.IntVar(&o.growth, "growth", 0, "measure a start behind so many containers on one bridge, too; 900 takes a minute")
	flag.StringVar(&o.readme, "readme", "", "put the table into this `file`, between its lines <!-- bench --> and <!-- /bench -->")
	flag.BoolVar(&o.assert, "assert", false, "fail when a target is missed")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
}

func run(o options) error {
	h, err := prepare(o.dir)
	if err != nil {
		return err
	}
	defer h.remove()
	h.printVersions()
	if o.held > 0 {
		defer h.letGo("held", o.held)
		if err := h.hold("held", "bridge", o.held); err != nil {
			return err
		}
	}
	series, err := measure(choose(h.subjects(), o.only), o.warmup, o.rounds)
	if err != nil {
		return err
	}
	printTable(series)
	if err := writeSamples(o.samples, series); err != nil {
		return err
	}
	if err := h.printSteps(o.rounds); err != nil {
		return err
	}
	if err := h.printMemory(); err != nil {
		return err
	}
	r := report{rounds: o.rounds, series: series, verdicts: verdicts(series)}
	if o.growth > 0 {
		if r.growth, err = h.measureGrowth(o.growth, o.rounds); err != nil {
			return err
		}
		r.growth.print()
		r.verdicts = append(r.verdicts, r.growth.verdict())
	}
	if o.readme != "" {
		if err := r.write(o.readme); err != nil {
			return err
		}
	}
	return judge(r.verdicts, o.assert)
}

// choose keeps the subjects whose name contains text, and the floor.
func choose(all []subject, text string) []subject {
	var chosen []subject
	for _, s := range all {
		if s.name == floorName || strings.Contains(s.name, text) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}
