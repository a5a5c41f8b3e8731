package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

func newPlugin(t *testing.T) *Plugin {
	t.Helper()
	dir := t.TempDir()
	return &Plugin{Root: filepath.Join(dir, "run[1]"), DataDir: filepath.Join(dir, "lib"), Name: "bridge", Warn: func(string) {}}
}

func callOf(id string) *call {
	return &call{id: id, ifName: "eth0", conf: config{Name: "lan", Type: "bridge", Valid: &[]cni.AttachmentID{}}}
}

// lease is an object whose file lies below dir.
func lease(t *testing.T, p *Plugin, id, address string) netsetup.Object {
	t.Helper()
	o := netsetup.Object{Kind: "lease", Network: "lan", Name: address, Owner: id, IfName: "eth0", Dir: filepath.Join(p.DataDir, "networks")}
	if err := os.MkdirAll(filepath.Join(o.Dir, o.Network), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, leaseFile(o), id+"\r\neth0")
	return o
}

func leaseFile(o netsetup.Object) string { return filepath.Join(o.Dir, o.Network, o.Name) }

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open is a record, opened, with objects.
func open(t *testing.T, p *Plugin, c *call, objects ...netsetup.Object) *record {
	t.Helper()
	r, err := p.open(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := r.journal(o); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

// What was recorded is read back, each object once, and survives a line that was torn at any byte.
func TestRecordJournal(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	first := netsetup.Object{Kind: "lease", Network: "lan", Name: "10.0.0.2", Owner: "c1", IfName: "eth0"}
	second := netsetup.Object{Kind: "masquerade", Network: "lan", Name: "10.0.0.2", Owner: "c1"}
	r := open(t, p, callOf("c1"), first, first)
	path := filepath.Join(r.dir, "objects")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) / 2 {
		write(t, path, string(whole[:len(whole)-cut]))
		if err := r.journal(second); err != nil {
			t.Fatal(err)
		}
		if got, err := r.objects(); err != nil || !slices.Equal(got, []netsetup.Object{first, second}) {
			t.Fatalf("%d bytes are missing: %v, %v", cut, got, err)
		}
	}
	r.close()
	if all, err := p.Objects(); err != nil || len(all) != 2 {
		t.Errorf("Objects: %v, %v", all, err)
	}
}

// What belongs to a network is no attachment's: it is written into the network's journal, once.
func TestRecordNetworkObjects(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	bridge := netsetup.Object{Kind: "bridge", Network: "lan", Name: "lan0"}
	for _, id := range []string{"c1", "c2"} {
		r := open(t, p, callOf(id), bridge)
		if list, err := r.objects(); err != nil || len(list) > 0 {
			t.Errorf("the attachment's: %v, %v", list, err)
		}
		r.close()
	}
	if list, err := objectsIn(filepath.Join(p.Root, "network-objects")); err != nil || !slices.Equal(list, []netsetup.Object{bridge}) {
		t.Errorf("the network's: %v, %v", list, err)
	}
}

// An ADD that was killed is undone by the next one, by DEL and by Collect; its folders go with it.
func TestRecordOfKilledAdd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *Plugin) error{
		"DEL":     func(p *Plugin) error { return p.del(context.Background(), callOf("c1")) },
		"GC":      func(p *Plugin) error { return p.gc(context.Background(), callOf("")) },
		"Collect": func(p *Plugin) error { _, err := p.Collect(context.Background()); return err },
		"ADD, DEL": func(p *Plugin) error {
			r, err := p.begun(context.Background(), callOf("c1"))
			if err != nil {
				return err
			}
			r.close()
			return p.del(context.Background(), callOf("c1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlugin(t)
			o := lease(t, p, "c1", "10.0.0.2")
			r := open(t, p, callOf("c1"), o)
			write(t, filepath.Join(r.dir, "attached.new"), `{"attachm`)
			r.close()
			if err := end(p); err != nil {
				t.Error(err)
			}
			gone(t, leaseFile(o))
			gone(t, p.dir())
		})
	}
}

// A record that can't be read is no reason to keep what is in it, but for Collect: its attachment may be in use.
func TestRecordDamaged(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	o := lease(t, p, "c1", "10.0.0.2")
	r := open(t, p, callOf("c1"), o)
	write(t, filepath.Join(r.dir, "attached"), `{"attachment": [`)
	r.close()
	if _, err := p.begun(context.Background(), callOf("c1")); err == nil || !strings.Contains(err.Error(), r.dir) {
		t.Errorf("ADD: %v", err)
	}
	if _, err := p.Collect(context.Background()); err == nil || !strings.Contains(err.Error(), r.dir) {
		t.Errorf("Collect: %v", err)
	}
	if _, err := os.Stat(leaseFile(o)); err != nil {
		t.Errorf("the lease is gone: %v", err)
	}
	if err := p.del(context.Background(), callOf("c1")); err != nil {
		t.Errorf("DEL: %v", err)
	}
	gone(t, leaseFile(o))
	gone(t, p.dir())
}

// An object that can't be undone keeps its record for another try; the others are undone all the same.
func TestRecordIsKeptAfterAnError(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	o := lease(t, p, "c1", "10.0.0.2")
	r := open(t, p, callOf("c1"), netsetup.Object{Kind: "of a later nsinit", Name: "x", Owner: "c1"}, o,
		netsetup.Object{Kind: netsetup.KindInterface, Name: "/run/netns/there-is-none", IfName: "eth0", Owner: "c1", Was: "7"})
	r.close()
	if err := p.del(context.Background(), callOf("c1")); err == nil || !strings.Contains(err.Error(), "of a later nsinit") {
		t.Errorf("DEL: %v", err)
	}
	gone(t, leaseFile(o))
	if _, err := os.Stat(r.dir); err != nil {
		t.Errorf("the record is gone: %v", err)
	}
}

// What is no record below the folder is left alone, and in nobody's way.
func TestRecordsOfOthers(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	o := lease(t, p, "c1", "10.0.0.2")
	open(t, p, callOf("c1"), o).close()
	foreign := []string{"README", "lan/notes", "lan/folder/bridge/objects", "lan/c2@eth0/file"}
	for _, name := range foreign {
		path := filepath.Join(p.dir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, "\x00 not JSON {}\n{\"kind\": 7}\n")
	}
	ended, err := p.Collect(context.Background())
	if err != nil || !slices.Equal(ended, []string{"lan/c1@eth0/bridge"}) {
		t.Errorf("Collect: %q, %v", ended, err)
	}
	gone(t, leaseFile(o))
	for _, name := range foreign {
		if _, err := os.Stat(filepath.Join(p.dir(), name)); err != nil {
			t.Error(err)
		}
	}
}

// No call's words lead out of the folder, whatever the command.
func TestRecordNames(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"ADD", "CHECK", "DEL", "GC"} {
		for _, word := range []string{"..", "../x", "x/../../y", "/etc", "*", "a/b", "."} {
			for field := range 4 {
				words := []string{"c1", "eth0", "lan", "bridge"}
				if command == "GC" && field < 2 {
					continue // has neither
				}
				words[field] = word
				env := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": words[0], "CNI_IFNAME": words[1], "CNI_NETNS": "/run/netns/x"}
				conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": %q}`, words[2], words[3])
				c, err := readCall("nsinit", func(name string) string { return env[name] }, strings.NewReader(conf))
				if err == nil {
					p := Plugin{Root: "/r"}
					if dir := p.recordDir(c); field != 1 || filepath.Dir(filepath.Dir(dir)) != "/r/cni/lan" || filepath.Base(dir) != "bridge" {
						t.Errorf("%s %q: the record is %s", command, words, dir)
					}
				}
			}
		}
	}
}

// Several at once that begin and end one record have it alone, and lose nothing to another's end.
func TestRecordAtOnce(t *testing.T) {
	t.Parallel()
	p := newPlugin(t)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for round := range 50 {
				// Others of the network come and go as well: the folders are shared.
				neighbour := open(t, p, callOf(fmt.Sprint("n", i)))
				r := open(t, p, callOf("c1"))
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the record", n)
				}
				o := netsetup.Object{Kind: "lease", Name: fmt.Sprint(i, "-", round), Owner: "c1"}
				if err := r.journal(o); err != nil {
					t.Error(err)
				}
				if list, err := r.objects(); err != nil || !slices.Equal(list, []netsetup.Object{o}) {
					t.Errorf("%v, %v; want %v alone", list, err, o.Name)
				}
				inside.Add(-1)
				for _, r := range []*record{r, neighbour} {
					if err := r.remove(); err != nil {
						t.Error(err)
					}
					p.prune(r.dir)
				}
			}
		})
	}
	wg.Wait()
	gone(t, p.dir())
}

// The folders of a record whose end was killed go with the next DEL, GC or Collect, however many of them are left.
func TestRecordOfKilledEnd(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"", "lan", "lan/c1@eth0", "lan/c1@eth0/bridge"} {
		for name, end := range map[string]func(p *Plugin) error{
			"DEL":     func(p *Plugin) error { return p.del(context.Background(), callOf("c1")) },
			"GC":      func(p *Plugin) error { return p.gc(context.Background(), callOf("")) },
			"Collect": func(p *Plugin) error { _, err := p.Collect(context.Background()); return err },
		} {
			p := newPlugin(t)
			if err := os.MkdirAll(filepath.Join(p.dir(), left), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := end(p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Stat(p.dir()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s leaves %q", name, left)
			}
		}
	}
}
