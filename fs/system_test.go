package fs

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Containers that share a root file system without mount points make them at once, and all start.
func TestSystemDirMadeByOthers(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const makers, rounds = 8, 200
	for range rounds {
		var wg sync.WaitGroup
		errs := make([]error, makers)
		for i := range makers {
			wg.Go(func() {
				fd, err := (&Root{dir: dir}).systemDir("proc")
				if err == nil {
					closeFD(fd)
				}
				errs[i] = err
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(path, "proc")); err != nil {
			t.Fatal(err)
		}
	}
}
