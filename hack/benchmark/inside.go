package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// printSteps prints the median time of each of nsinit's own steps.
func (h *host) printSteps(rounds int) error {
	var order []string
	steps := map[string]*series{}
	for range rounds {
		var trace bytes.Buffer
		c := exec.Command(h.nsinit(), "--trace", "run", "--network", "bridge", "--rootfs", h.root, "true")
		c.Stderr = &trace
		if err := c.Run(); err != nil {
			return fmt.Errorf("nsinit --trace run: %w: %s", err, trace.String())
		}
		for line := range strings.Lines(trace.String()) {
			name, took, ok := parseStep(line)
			if !ok {
				continue
			}
			if steps[name] == nil {
				steps[name] = &series{}
				order = append(order, name)
			}
			steps[name].samples = append(steps[name].samples, took)
		}
	}
	fmt.Printf("\n%-28s %9s %9s\n", "nsinit's steps, ms", "median", "90 %")
	for _, name := range order {
		fmt.Printf("%-28s %9.3f %9.3f\n", name, milliseconds(steps[name].median()), milliseconds(steps[name].quantile(0.9)))
	}
	return nil
}

// parseStep reads a line "trace: SIDE STEP DURATION"; a step's name may be two words.
func parseStep(line string) (name string, took time.Duration, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[0] != "trace:" {
		return "", 0, false
	}
	last := len(fields) - 1
	took, err := time.ParseDuration(fields[last])
	return strings.Join(fields[1:last], " "), took, err == nil
}

// printMemory prints the peak resident memory of the host side, while its
// container runs, and of the init, which --init keeps from becoming the program.
func (h *host) printMemory() error {
	c := exec.Command(h.nsinit(), "run", "--init", "--network", "bridge", "--rootfs", h.root, "sleep", "100000")
	if err := c.Start(); err != nil {
		return err
	}
	defer func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	}()
	host, init, err := peaks(c.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("\npeak resident memory: host side %d kB, init %d kB\n\n", host, init)
	return nil
}

// peaks waits until nsinit's init has started the program, and reads both peaks.
func peaks(pid int) (host, init int, err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, child := range children(pid) {
			if len(children(child)) == 0 {
				continue
			}
			return peak(pid), peak(child), nil
		}
	}
	return 0, 0, fmt.Errorf("nsinit run --init: no program below the init after 5 s")
}

// children lists the pids of a process's children, whatever thread started them.
func children(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// peak is a process's VmHWM in kB, or 0.
func peak(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb
		}
	}
	return 0
}
