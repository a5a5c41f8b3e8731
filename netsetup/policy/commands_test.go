package policy

import (
	"context"
	"errors"
	goflag "flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

var update = goflag.Bool("update", false, "write table.nft anew")

// TestTableText compares the tables' text with what nft lists once nsinit has made them, and its replay with that.
// After a change of a table: go test ./netsetup/policy -run TestTableText -update.
func TestTableText(t *testing.T) {
	t.Parallel()
	h := netsetuptest.NewHost(t)
	ledger := &ledger{path: ledgerPath(t.TempDir())}
	err := h.Do(func() error {
		return errors.Join(makeTable(context.Background(), newTable(), ledger, elements{}), newSpoofTable().make(context.Background(), nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	list := func(h *netsetuptest.Host, family string) string {
		return h.Run(t, "nft", "-s", "list", "table", family, tableName).OK(t).Stdout
	}
	again := netsetuptest.NewHost(t)
	for family, have := range map[string]struct{ file, text string }{
		"inet": {"table.nft", inetText}, "bridge": {"table_bridge.nft", bridgeText},
	} {
		text := list(h, family)
		if *update {
			if err := os.WriteFile(have.file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(have.text, text); diff != "" {
			t.Errorf("%s is not what is made; run this test with -update (-have +want):\n%s", have.file, diff)
		}
		for range 2 { // the second time it only makes the rules anew
			again.Run(t, "sh", "-c", makeCommand(family, have.text).Line).OK(t)
		}
		if diff := cmp.Diff(text, list(again, family)); diff != "" {
			t.Errorf("the command makes another table (-nsinit +command):\n%s", diff)
		}
	}
}

// TestCommandsOnceDone has nothing to say of forwarding that is on.
func TestCommandsOnceDone(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	var before, after []netsetup.Command
	err := l.DoInside(func() (err error) {
		if before, err = Commands(a, l.opt); err != nil {
			return err
		}
		if err := Masquerade(l.context(), l.host(), a, "c", l.opt, l.record); err != nil {
			return err
		}
		after, err = Commands(a, l.opt)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != 3 || len(before) <= 3 {
		t.Errorf("before %v\nafter %v", before, after)
	}
	a.Bridge, a.Addresses = "nsi9", []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}
	if err := l.DoInside(func() (err error) { after, err = Commands(a, l.opt); return err }); err != nil || len(after) < 3 {
		t.Errorf("a bridge that isn't there yet: %v, %v", after, err)
	}
}
