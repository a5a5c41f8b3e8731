//go:build !nsinit_gates

package gate

// At does nothing without the build tag nsinit_gates.
func At(_, _, _ string) {}

// Change does nothing without the build tag nsinit_gates.
func Change() {}

// Skipped is false without the build tag nsinit_gates.
func Skipped(_, _ string) bool { return false }

// Open does nothing without the build tag nsinit_gates.
func Open() {}

// Env is empty without the build tag nsinit_gates.
func Env() []string { return nil }
