package ipam

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

const childEnv = "NSINIT_IPAM_TEST_CHILD"

// TestMain is the child of TestNoTwoShareAnAddress as well.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(allocateMany(dir))
	}
	os.Exit(m.Run())
}

const (
	goroutines = 8
	processes  = 4
	each       = 12
)

// allocateMany takes addresses from several goroutines, gives every third back
// and prints those that it keeps.
func allocateMany(dir string) int {
	var wg sync.WaitGroup
	var out sync.Mutex
	code := 0
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("p%d-g%d-%d", os.Getpid(), g, i)
				var taken netsetup.Object
				addrs, _, err := Allocate(context.Background(), planOf(dir, pool("10.1.0.0/22")), id, func(o netsetup.Object) error {
					taken = o
					return nil
				})
				if err == nil && i%3 == 2 {
					err = Undo(taken)
					addrs = nil
				}
				out.Lock()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					code = 1
				}
				for _, a := range addrs {
					fmt.Println(a.Addr(), id)
				}
				out.Unlock()
			}
		})
	}
	wg.Wait()
	return code
}

// TestNoTwoShareAnAddress: several processes of several goroutines, giving back
// between.
func TestNoTwoShareAnAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var outs [processes]bytes.Buffer
	var cmds [processes]*exec.Cmd
	for i := range cmds {
		cmds[i] = exec.CommandContext(t.Context(), "/proc/self/exe")
		cmds[i].Env = append(os.Environ(), childEnv+"="+dir)
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	owner := make(map[string]string)
	for i := range cmds {
		if err := cmds[i].Wait(); err != nil {
			t.Error(err)
		}
		for lines := bufio.NewScanner(&outs[i]); lines.Scan(); {
			addr, id, _ := strings.Cut(lines.Text(), " ")
			if other, twice := owner[addr]; twice {
				t.Errorf("%s: given to %s and to %s", addr, other, id)
			}
			owner[addr] = id
			content, err := os.ReadFile(filepath.Join(dir, "lan", addr))
			if err != nil || string(content) != id+"\r\neth0" {
				t.Errorf("%s: lease %q, %v; want %s", addr, content, err, id)
			}
		}
	}
	if want := goroutines * processes * each * 2 / 3; len(owner) != want || len(leaseFiles(t, dir)) != want {
		t.Errorf("%d addresses, %d leases, want %d", len(owner), len(leaseFiles(t, dir)), want)
	}
}

// BenchmarkAllocate shows that a start costs the same with many leases held.
func BenchmarkAllocate(b *testing.B) {
	for _, held := range []int{0, 100, 1000, 3000} {
		b.Run(fmt.Sprintf("held=%d", held), func(b *testing.B) {
			p := planOf(b.TempDir(), pool("10.1.0.0/20"), pool("fd00:1::/64"))
			for i := range held {
				if _, _, err := Allocate(b.Context(), p, fmt.Sprint("c", i), func(netsetup.Object) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				var taken []netsetup.Object
				_, _, err := Allocate(b.Context(), p, "one", func(o netsetup.Object) error {
					taken = append(taken, o)
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				for _, o := range taken {
					if err := Undo(o); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
