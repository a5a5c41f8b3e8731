package policy

import (
	"context"
	goflag "flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

var update = goflag.Bool("update", false, "write table.nft anew")

// TestTableText compares table.nft with what nft lists once nsinit has made the table, and its replay with that.
// After a change of the table: go test ./netsetup/policy -run TestTableText -update.
func TestTableText(t *testing.T) {
	t.Parallel()
	h := netsetuptest.NewHost(t)
	ledger := &ledger{path: ledgerPath(t.TempDir())}
	if err := h.Do(func() error { return makeTable(context.Background(), newTable(), ledger, elements{}) }); err != nil {
		t.Fatal(err)
	}
	list := func(h *netsetuptest.Host) string {
		return trimTable(h.Run(t, "nft", "-s", "list", "table", "inet", tableName).OK(t).Stdout)
	}
	text := list(h)
	if *update {
		if err := os.WriteFile("table.nft", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(tableText, text); diff != "" {
		t.Errorf("table.nft is not what is made; run this test with -update (-have +want):\n%s", diff)
	}
	again := netsetuptest.NewHost(t)
	for range 2 { // the second time it only makes the rules anew
		again.Run(t, "sh", "-c", TableCommand().Line).OK(t)
	}
	if diff := cmp.Diff(text, list(again)); diff != "" {
		t.Errorf("the command makes another table (-nsinit +command):\n%s", diff)
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
