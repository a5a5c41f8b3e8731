package main

import (
	"errors"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func killVerb() verb {
	return verb{
		name: "kill", form: "[flags] ID [SIGNAL]", min: 1, max: 2,
		brief: "send a signal to a container",
		about: "The container's program gets SIGNAL: a name with or without SIG, or a number; TERM if none is given. A program that is process 1 gets only the signals that it handles, and KILL; with nsinit run --init it gets all.",
		examples: []example{
			{"nsinit kill web", "ask it to end"},
			{"nsinit kill web HUP", "have it read its configuration again"},
			{"nsinit kill --all web KILL", "end each of its processes"},
		},
		setup: func(a *app) ([]group, action) {
			var all bool
			groups := []group{{"Flags", []flag{
				{name: "all", short: "a", help: "signal each process of the container", set: toggle(&all)},
			}}}
			return groups, func(args []string) (int, error) {
				name := "TERM"
				if len(args) == 2 {
					name = args[1]
				}
				sig, err := parseSignal(name)
				if err != nil {
					return exitFailure, usage("SIGNAL: %s: %w", quote(name), err)
				}
				if err := checkID(args[0]); err != nil {
					return exitFailure, err
				}
				return 0, a.runtime().Kill(args[0], sig, all)
			}
		},
	}
}

// The real-time signals as glibc and musl hand them out: the first ones are theirs.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// parseSignal reads a signal's number, or its name with or without SIG, in either case.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, errors.New("not a number from 1 to 64")
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	if n, ok := realTime(name); ok {
		return syscall.Signal(n), nil
	}
	return 0, errors.New("unknown signal; a name as TERM or RTMIN+1, or a number")
}

// realTime reads RTMIN, RTMIN+N, RTMAX and RTMAX-N.
func realTime(name string) (int, bool) {
	base, sign := sigRTMin, "+"
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base, sign = sigRTMax, "-"
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
	}
	if rest == "" {
		return base, true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, sign), 10, 8)
	if err != nil || !strings.HasPrefix(rest, sign) || n > sigRTMax-sigRTMin {
		return 0, false
	}
	if sign == "-" {
		return base - int(n), true
	}
	return base + int(n), true
}
