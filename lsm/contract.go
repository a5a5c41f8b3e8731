// Package lsm applies an AppArmor profile and an SELinux label to the program that a
// container executes, and refuses what the kernel can't apply.
package lsm

import (
	"errors"
	"os"
)

var errTodo = errors.New("not built yet")

// Config is what is asked. Empty fields ask nothing.
type Config struct {
	AppArmor     string // profile for the exec; "unconfined" asks for none
	ProcessLabel string // SELinux label of the process
	MountLabel   string // SELinux label of the mounts that are made
}

// Validate refuses malformed names and labels, and what the running kernel does not have. It is
// called on the host side, before anything is made.
func (c Config) Validate() error { return errTodo }

// ApplyAppArmor has the kernel change to the profile at the next exec of the calling thread.
// proc is a procfs that nobody else can reach.
func ApplyAppArmor(proc *os.File, profile string) error { return errTodo }

// ApplySELinux sets the label of the next exec of the calling thread, and of keys.
func ApplySELinux(proc *os.File, label string) error { return errTodo }

// Current returns what process pid runs under: profile and label, "" where the kernel has none.
func Current(proc *os.File, pid int) (profile, label string, err error) { return "", "", errTodo }
