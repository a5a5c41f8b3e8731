package fs

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Another container swaps a directory of a shared volume for a link while a mount point below it is looked
// up or made: it is inside, or there is none.
func TestTargetRace(t *testing.T) {
	if !inHost(t) {
		return
	}
	_, unchanged := canary(t)
	root := newRootfs(t)
	must(t, os.MkdirAll(root+"/vol/a", 0o755))
	must(t, os.Symlink("../../canary", root+"/vol/b"))
	vol, err := unix.Open(root+"/vol", unix.O_PATH, 0)
	must(t, err)
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			unix.Renameat2(vol, "a", vol, "b", unix.RENAME_EXCHANGE)
		}
		done <- n
	}()
	dir, err := unix.Open(root, unix.O_PATH, 0)
	must(t, err)
	tries, fails := 0, 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); tries++ {
		if !raceOnce(t, dir, root, tries) {
			fails++
		}
	}
	stop.Store(true)
	t.Logf("%d mount points against %d swaps, %d refused", tries, <-done, fails)
	if tries == fails {
		t.Error("none was made")
	}
	unchanged()
}

func raceOnce(t *testing.T, dir int, root string, try int) bool {
	t.Helper()
	target, err := makeTarget(dir, "/vol/a/x/y", try%2 == 0)
	if err != nil {
		return false
	}
	defer closeFD(target)
	name, err := readLink(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", target))
	must(t, err)
	if !strings.HasPrefix(name, root+"/") {
		t.Errorf("a mount point outside the root: %s", name)
	}
	for _, made := range []string{"/vol/a", "/vol/b", "/canary", "/vol/canary"} {
		os.RemoveAll(root + made + "/x")
	}
	return true
}
