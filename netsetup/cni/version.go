package cni

import (
	"slices"
	"strconv"
	"strings"
)

// Versions of the specification that nsinit speaks, oldest first.
func Versions() []string { return []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} }

// Known tells whether nsinit speaks version.
func Known(version string) bool { return slices.Contains(Versions(), version) }

// AtLeast tells whether version is least or newer. What is no version is older than
// all.
func AtLeast(version, least string) bool {
	a, b := numbers(version), numbers(least)
	return slices.Compare(a[:], b[:]) >= 0
}

func numbers(version string) (n [3]int) {
	for i, part := range strings.SplitN(version, ".", len(n)) {
		n[i], _ = strconv.Atoi(part)
	}
	return n
}
