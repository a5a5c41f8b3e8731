package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// A series is what was measured of one subject, in order of time.
type series struct {
	subject
	samples []time.Duration
}

// A way is how starts follow each other.
type way struct {
	name string
	rest time.Duration // before each start
}

// ways are both: a start by itself, on a machine that has nothing else to do, as a person's and most engines' are; and
// starts in a row, as a suite of tests has them. What the kernel does after a start it does in the first case before the
// next one, and in the second beside it; and what a start has to wait for there (a grace period of RCU, when it moves a
// process into its cgroup) it shares in the second with those around it.
func ways(rest time.Duration) []way { return []way{{"at rest", rest}, {"in a row", 0}} }

// quantile returns the sample below which the share q of them lies.
func (s *series) quantile(q float64) time.Duration {
	if len(s.samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.samples))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (s *series) median() time.Duration { return s.quantile(0.5) }

// measure runs all subjects in each round, in an order that changes from round to
// round (but not from run to run): what one leaves to the kernel, such as the end
// of a network namespace, is paid by whoever comes next.
func (w way) measure(subjects []subject, warmup, rounds int) ([]*series, error) {
	all := make([]*series, len(subjects))
	for i, s := range subjects {
		all[i] = &series{subject: s}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range warmup + rounds {
		for _, i := range random.Perm(len(all)) {
			time.Sleep(w.rest)
			took, err := all[i].time()
			if err != nil {
				return nil, err
			}
			if round >= warmup {
				all[i].samples = append(all[i].samples, took)
			}
		}
	}
	return all, nil
}

// time runs the subject once, from before its fork until it has been reaped.
func (s *subject) time() (time.Duration, error) {
	var output strings.Builder
	c := exec.Command(s.argv[0], s.argv[1:]...)
	c.Env = append(os.Environ(), s.env...)
	file, err := os.CreateTemp("", "nsinit-bench-output-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	c.Stdout, c.Stderr = file, file // no copying goroutine to wait for
	start := time.Now()
	err = c.Run()
	took := time.Since(start)
	if err != nil {
		data, _ := os.ReadFile(file.Name())
		output.Write(data)
		return 0, fmt.Errorf("%s: %w: %s", s.name, err, strings.TrimSpace(output.String()))
	}
	return took, nil
}
