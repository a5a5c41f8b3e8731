package netsetuptest

import (
	"testing"
	"time"
)

// Retry calls f until it returns nil or limit is over, and returns its last error. The kernel removes namespaces,
// and what is in them, some time after their last process.
func Retry(limit time.Duration, f func() error) error {
	pause := time.Millisecond
	for deadline := time.Now().Add(limit); ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// Poll calls f until it returns nil, and fails t with its last error after Patience.
func Poll(t testing.TB, f func() error) {
	t.Helper()
	if err := Retry(Patience, f); err != nil {
		t.Fatalf("after %v: %v", Patience, err)
	}
}
