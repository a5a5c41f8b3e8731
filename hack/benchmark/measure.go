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
func measure(subjects []subject, warmup, rounds int) ([]*series, error) {
	all := make([]*series, len(subjects))
	for i, s := range subjects {
		all[i] = &series{subject: s}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range warmup + rounds {
		for _, i := range random.Perm(len(all)) {
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
