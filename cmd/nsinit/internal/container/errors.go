package container

import (
	"errors"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/step"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
)

// Exit codes as docker's.
const (
	exitNsinit = 125 // nsinit failed
)

// initError is a step of the init that failed.
type initError struct{ wire.Failure }

func (e *initError) Error() string { return "init: " + e.Step + ": " + e.Text }

// ExitCode is the process exit code for err: 125, or 126 and 127 where the program couldn't be executed or found.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if me, ok := errors.AsType[*monitorError](err); ok {
		return me.code
	}
	if ie, ok := errors.AsType[*initError](err); ok {
		return ie.Code
	}
	if pe, ok := errors.AsType[*program.Error](err); ok {
		return pe.Code
	}
	return exitNsinit
}

// plain takes an init's failure out of the host step that waited for it: "init: hostname: ...", not
// "ready: init: hostname: ...".
func plain(err error) error {
	if err == nil {
		return nil
	}
	se, ok := errors.AsType[*step.Error](err)
	if !ok {
		return err
	}
	if ie, ok := errors.AsType[*initError](se.Err); ok {
		return ie
	}
	return err
}

// oneLine joins the lines of an error that stands for several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
