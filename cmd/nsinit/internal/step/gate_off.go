//go:build !nsinit_gates

package step

func gate(_, _, _ string) {}

func skipped(_, _ string) bool { return false }

// OpenGate does nothing without the build tag nsinit_gates.
func OpenGate() {}

// GateEnv is empty without the build tag nsinit_gates.
func GateEnv() []string { return nil }
