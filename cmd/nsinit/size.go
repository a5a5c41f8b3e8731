package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// parseSize parses an amount of memory, in bytes or with a unit of 1024: b, k, m, g,
// t, in either case, and written out as kb or kib too.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(s), "bkmgti")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, errors.New("too large")
		}
		return 0, errors.New("want a number with b, k, m, g or t")
	}
	shift, ok := unitShift(strings.ToLower(s[len(digits):]))
	switch {
	case !ok:
		return 0, errors.New("unknown unit; one of b, k, m, g, t")
	case n == 0:
		return 0, errors.New("zero")
	case n > math.MaxInt64>>shift:
		return 0, errors.New("too large")
	}
	return int64(n << shift), nil
}

// unitShift is a unit's power of two.
func unitShift(unit string) (uint, bool) {
	switch unit {
	case "", "b":
		return 0, true
	case "k", "kb", "kib":
		return 10, true
	case "m", "mb", "mib":
		return 20, true
	case "g", "gb", "gib":
		return 30, true
	case "t", "tb", "tib":
		return 40, true
	}
	return 0, false
}
