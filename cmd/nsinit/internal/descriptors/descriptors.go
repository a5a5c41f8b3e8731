// Package descriptors ends the process where it may open hardly any file. The Go runtime crashes with a trace when its poller
// gets no descriptor, and the first file that starts it is opened in the init of a package that we don't own. This one
// needs nothing but syscall and has its init before that (Go specification, "Program initialization").
package descriptors

import "syscall"

// enough is how many the runtime takes. A start needs some more, and has an error of its own where they lack.
const enough = 8

const exitFailure = 125

func init() {
	var l syscall.Rlimit
	// The hard limit: package os raises the soft one to it.
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err == nil && l.Max < enough {
		_, _ = syscall.Write(syscall.Stderr, []byte("nsinit: descriptors: the limit is below 8; raise it with ulimit -n\n"))
		syscall.Exit(exitFailure)
	}
}
