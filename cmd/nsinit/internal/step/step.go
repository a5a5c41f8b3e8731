// Package step runs the two ordered lists that nsinit is: what the host side
// does and what the init does. A step's name is the word for it everywhere: in
// errors, in --trace, in the documentation and in the fault tests.
package step

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nsinit/nsinit/netsetup/gate"
)

// A Step is one named thing to do.
type Step[T any] struct {
	Name string
	When func(T) bool  // nil: always
	Do   func(T) error // what to do
	Undo func(T) error // host side only: undoes what was done or only begun; nil: gone with the process or its namespaces
}

// Error is a failed step. Its text is "NAME: cause".
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Tracer is told of each finished step; nil means nobody listens.
type Tracer func(name string, took time.Duration)

// Run does the steps in order. When one fails, those begun are undone in reverse.
func Run[T any](side string, steps []Step[T], t T, trace Tracer) error {
	for i, s := range steps {
		if s.When != nil && !s.When(t) || gate.Skipped(side, s.Name) {
			continue
		}
		gate.At(side, s.Name, "before")
		start := time.Now()
		if err := s.Do(t); err != nil {
			return errors.Join(&Error{Step: s.Name, Err: err}, Undo(steps[:i+1], t))
		}
		if trace != nil {
			trace(s.Name, time.Since(start))
		}
		gate.At(side, s.Name, "after")
	}
	return nil
}

// Undo undoes the steps in reverse and goes on after an error.
func Undo[T any](steps []Step[T], t T) error {
	var errs []error
	for _, s := range slices.Backward(steps) {
		if s.Undo == nil {
			continue
		}
		if err := s.Undo(t); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Names returns the steps' names in order.
func Names[T any](steps []Step[T]) []string {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.Name
	}
	return names
}
