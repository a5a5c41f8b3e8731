package container

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsinit/nsinit/netsetup"
	"golang.org/x/sys/unix"
)

// TestEncodeObject holds the journal's own encoder to encoding/json, with a field of the type that it doesn't know too.
func TestEncodeObject(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain /sys/fs/cgroup/x", "quote\"", "back\\slash", "naïve", "control\n", "<&>"} {
		var o netsetup.Object
		v := reflect.ValueOf(&o).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.String {
				f.SetString(text)
			} else {
				t.Errorf("field %s isn't a string: encodeEntry has to learn it", v.Type().Field(i).Name)
			}
		}
		line, err := encodeEntry(entry{Object: o, Attachment: text})
		if err != nil {
			t.Fatal(err)
		}
		var back entry
		if err := json.Unmarshal(line, &back); err != nil || back != (entry{Object: o, Attachment: text}) {
			t.Errorf("%s: %+v, %v", line, back, err)
		}
	}
}

func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	return &Runtime{Root: filepath.Join(t.TempDir(), "run"), DataDir: t.TempDir()}
}

func testRecord(t *testing.T, r *Runtime, id string) *record {
	t.Helper()
	rec, err := r.claim(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rec.lock.Unlock)
	return rec
}

func TestClaimIsUnique(t *testing.T) {
	r := testRuntime(t)
	rec := testRecord(t, r, "a")
	if _, err := r.claim("a"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second claim: %v", err)
	}
	if err := rec.remove(); err != nil {
		t.Fatal(err)
	}
	again := testRecord(t, r, "a")
	if err := again.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.State("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state of a removed container: %v", err)
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "-a", ".a", "a b", "a\n", "ä", strings.Repeat("x", 256)} {
		if CheckID(id) == nil {
			t.Errorf("%q was taken", id)
		}
	}
	for _, id := range []string{"a", "A_b+c-d.e", "0", strings.Repeat("x", 255)} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A line that a kill has torn is of an object that was never made.
func TestTornJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects")
	want := []netsetup.Object{{Kind: "lease", Name: "10.0.0.2", Owner: "a"}, {Kind: "masquerade", Name: "10.0.0.2", Owner: "a"}}
	for _, o := range append(want, want[0]) {
		if err := journal(path, entry{Object: o}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"kind":"lea`)
	_ = f.Close()
	got, err := objects(path)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if list, err := objects(filepath.Join(t.TempDir(), "none")); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

// A record that this nsinit doesn't understand is an error and stays.
func TestForeignRecord(t *testing.T) {
	r := testRuntime(t)
	for name, content := range map[string]string{"version": `{"version":2}`, "garbage": `{"ver`} {
		rec := testRecord(t, r, name)
		if err := os.WriteFile(rec.path("state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		rec.lock.Unlock()
		if _, err := r.State(name); err == nil {
			t.Errorf("%s: no error", name)
		}
		removed, err := r.GC(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(removed) == 0 || removed[0].Error == "" {
			t.Errorf("%s: gc said nothing: %+v", name, removed)
		}
		if _, err := os.Stat(rec.dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = os.RemoveAll(rec.dir)
	}
}

// A pid that was given to another process is not the container, nor is one of another boot.
func TestStrangerIsNotAlive(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip("no sleep to start")
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	ticks, _, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		boot  string
		start uint64
		alive bool
	}{
		"itself":       {bootID(), ticks, true},
		"reused pid":   {bootID(), ticks - 1, false},
		"another boot": {"00000000-0000-0000-0000-000000000000", ticks, false},
	} {
		rec := &record{state: recorded{BootID: c.boot, StartTime: c.start, State: State{Pid: cmd.Process.Pid}}}
		pidfd, err := rec.alive()
		if err != nil || (pidfd != nil) != c.alive {
			t.Errorf("%s: alive %v, %v", name, pidfd != nil, err)
		}
		if pidfd != nil {
			_ = pidfd.Close()
		}
	}
}

// The state directory is only used when nobody else can write to it.
func TestStateDirectoryOfOthers(t *testing.T) {
	r := testRuntime(t)
	if err := r.ensureRoot(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.Root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := r.ensureRoot(); err == nil || !strings.Contains(err.Error(), "others can write") {
		t.Errorf("mode 0777: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Chmod(r.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(r.Root, link); err != nil {
		t.Fatal(err)
	}
	if err := (&Runtime{Root: link}).ensureRoot(); err == nil {
		t.Error("a link was taken for the directory")
	}
}

// A record whose owner removed it between somebody's look and their lock is gone, and not a leftover.
func TestAdopt(t *testing.T) {
	r := testRuntime(t)
	rec := testRecord(t, r, "a")
	other := &record{dir: rec.dir}
	if _, err := other.adopt(); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("owned: %v", err)
	}
	held, err := os.OpenFile(rec.path("lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := rec.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.adopt(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	if (&lock{held}).at(rec.path("lock")) {
		t.Error("the lock of a removed record was taken for one that holds")
	}
	if rec = testRecord(t, r, "b"); os.Remove(rec.path("lock")) != nil {
		t.Fatal("remove")
	}
	rec.lock.Unlock()
	l, err := rec.adopt() // killed between its directory and its lock
	if err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}

// When something could not be undone the record stays, for gc to try again.
func TestRecordOutlivesFailedUndo(t *testing.T) {
	r := testRuntime(t)
	h := &host{Runtime: r, rec: testRecord(t, r, "a")}
	if err := h.leaves(errors.New("busy")); err == nil || h.removeState() != nil {
		t.Error("the error is lost, or another came")
	}
	if _, err := os.Stat(h.rec.dir); err != nil {
		t.Error(err)
	}
}
