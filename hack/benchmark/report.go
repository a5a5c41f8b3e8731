package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// find returns the series with that name, or nil.
func find(all []*series, name string) *series {
	for _, s := range all {
		if s.name == name {
			return s
		}
	}
	return nil
}

// ratio formats how many times b's median a's is.
func ratio(a, b *series) string {
	if b == nil || b.median() == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a.median())/float64(b.median()))
}

func printTable(all []*series) {
	floor, nsinit := find(all, floorName), find(all, nsinitName)
	fmt.Printf("\n%-28s %9s %9s %9s %9s %9s\n", "start to exit, ms", "median", "fastest", "90 %", "x floor", "x nsinit")
	for _, s := range all {
		fmt.Printf("%-28s %9.2f %9.2f %9.2f %9s %9s\n", s.name, milliseconds(s.median()),
			milliseconds(s.quantile(0)), milliseconds(s.quantile(0.9)), ratio(s, floor), ratio(s, nsinit))
	}
}

// writeSamples keeps every sample in the format that benchstat reads.
func writeSamples(path string, all []*series) error {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	name := strings.NewReplacer(", ", "-", ": ", "-", " ", "-", "'", "")
	for _, s := range all {
		for _, sample := range s.samples {
			fmt.Fprintf(w, "BenchmarkStart/%s 1 %d ns/op\n", name.Replace(s.name), sample.Nanoseconds())
		}
	}
	return errors.Join(w.Flush(), file.Close())
}

// A verdict is a target, and whether it was met.
type verdict struct {
	text   string
	missed bool
	aim    bool // worth saying, but no failure
}

func (v verdict) String() string {
	if v.missed {
		return v.text + ", MISSED"
	}
	return v.text + ", met"
}

// verdicts compares with the targets: at most what crun takes without any network,
// less than a fifth of crun with the reference plugins, with all that engines chain
// less than a tenth; 2.5 floors are the aim.
func verdicts(all []*series) (list []verdict) {
	for _, target := range []struct {
		ours, peer string
		limit      float64
		aim        bool
	}{
		{nsinitName, crunName, 1, false},
		{nsinitName, cniName, 0.2, false},
		{nsinitName, floorName, 2.5, true},
		{nsinitChainRun, cniChainName, 0.1, false},
	} {
		nsinit, peer := find(all, target.ours), find(all, target.peer)
		if nsinit == nil || peer == nil || peer.median() == 0 {
			continue
		}
		is := float64(nsinit.median()) / float64(peer.median())
		list = append(list, verdict{
			text:   fmt.Sprintf("%s at most %.2f x %s: %.2f", target.ours, target.limit, target.peer, is),
			missed: is > target.limit, aim: target.aim,
		})
	}
	return list
}

// judge prints the verdicts. With assert a missed target is an error.
func judge(list []verdict, assert bool) error {
	var missed error
	for _, v := range list {
		fmt.Println("target:", v)
		if v.missed && !v.aim {
			missed = errors.Join(missed, errors.New(v.text))
		}
	}
	if !assert {
		return nil
	}
	return missed
}
