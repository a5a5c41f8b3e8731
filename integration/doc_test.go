// Package integration runs the built binary on machines of its own (see netsetuptest) and asks the kernel what came of it.
//
// NSINIT_BIN and NSINIT_GATES_BIN name the binary and its build with the tag nsinit_gates; without
// them both are built first. NSINIT_VM says that this is an emulated machine, and with which kernel.
package integration
