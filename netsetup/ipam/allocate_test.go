package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup"
)

// A journal records objects, as a container's state does.
type journal struct {
	t       testing.TB
	objects []netsetup.Object
	fault   error
}

func (j *journal) record(o netsetup.Object) error {
	if _, err := os.Lstat(filepath.Join(o.Dir, o.Network, o.Name)); err == nil {
		j.t.Errorf("%s: the lease was there before its record", o.Name)
	}
	j.objects = append(j.objects, o)
	return j.fault
}

func pool(prefix string) netsetup.Subnet {
	return netsetup.Subnet{Prefix: netip.MustParsePrefix(prefix)}
}

// planOf is a plan of a network with pools in dir.
func planOf(dir string, subnets ...netsetup.Subnet) netsetup.Plan {
	return netsetup.Plan{
		Request: netsetup.Request{
			Network: &netsetup.Network{Name: "lan"}, Strategy: "bridge", IfName: "eth0", Source: "--network lan",
		},
		IPAM: "host-local", DataDir: dir, Subnets: subnets,
	}
}

func asking(p netsetup.Plan, ips ...string) netsetup.Plan {
	for _, s := range ips {
		ip, err := netip.ParsePrefix(s)
		if err != nil {
			ip = netip.PrefixFrom(netip.MustParseAddr(s), -1)
		}
		p.IPs = append(p.IPs, ip)
	}
	return p
}

func leaseFiles(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	leases, err := leasesOf(filepath.Join(dir, "lan"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		names = append(names, l.addr.String())
	}
	return names
}

func TestAllocate(t *testing.T) {
	t.Parallel()
	v6 := pool("fd00:1::/64")
	ranged := netsetup.Subnet{
		Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.254"),
		RangeStart: netip.MustParseAddr("10.1.0.50"), RangeEnd: netip.MustParseAddr("10.1.0.60"),
	}
	other := pool("10.2.0.0/24")
	other.Alternative = true
	alternative := ranged
	alternative.RangeStart, alternative.RangeEnd = netip.MustParseAddr("10.1.0.70"), netip.MustParseAddr("10.1.0.80")
	alternative.Alternative = true
	static := planOf("")
	static.IPAM, static.Gateways = "static", []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	tests := []struct {
		name     string
		plan     netsetup.Plan
		addrs    string
		gateways string
		fault    string
	}{
		{"one subnet", planOf("", pool("10.1.0.0/24")), "[10.1.0.2/24]", "[10.1.0.1]", ""},
		{"both families", planOf("", pool("10.1.0.0/24"), v6), "[10.1.0.2/24 fd00:1::2/64]", "[10.1.0.1 fd00:1::1]", ""},
		{"two of a family", planOf("", pool("10.1.0.0/24"), pool("10.2.0.0/24")), "[10.1.0.2/24 10.2.0.2/24]", "[10.1.0.1]", ""},
		{"alternatives", planOf("", pool("10.1.0.0/24"), other), "[10.1.0.2/24]", "[10.1.0.1]", ""},
		{"asked for of an alternative", asking(planOf("", pool("10.1.0.0/24"), other), "10.2.0.9"), "[10.2.0.9/24]", "[10.2.0.1]", ""},
		{"alternatives of one subnet", asking(planOf("", ranged, alternative), "10.1.0.77"), "[10.1.0.77/24]", "[10.1.0.254]", ""},
		{"a range", planOf("", ranged), "[10.1.0.50/24]", "[10.1.0.254]", ""},
		{"asked for", asking(planOf("", pool("10.1.0.0/24"), v6), "10.1.0.77"), "[10.1.0.77/24 fd00:1::2/64]", "[10.1.0.1 fd00:1::1]", ""},
		{"asked for with length", asking(planOf("", pool("10.1.0.0/24")), "10.1.0.77/24"), "[10.1.0.77/24]", "[10.1.0.1]", ""},
		{"static", asking(static, "10.9.0.5/24", "fd00:9::5/64"), "[10.9.0.5/24 fd00:9::5/64]", "[10.9.0.1]", ""},
		{"static, no length", asking(static, "10.9.0.5"), "", "", "no prefix length"},
		{"other length", asking(planOf("", pool("10.1.0.0/24")), "10.1.0.77/16"), "", "", "the network's subnet is 10.1.0.0/24; write 10.1.0.77/24"},
		{"the gateway", asking(planOf("", pool("10.1.0.0/24")), "10.1.0.1"), "", "", "the gateway of 10.1.0.0/24"},
		{"the broadcast address", asking(planOf("", pool("10.1.0.0/24")), "10.1.0.255"), "", "", "outside of the pool's range 10.1.0.1-10.1.0.254"},
		{"elsewhere", asking(planOf("", pool("10.1.0.0/24"), v6), "10.7.0.9"), "", "", "outside of the network's subnets 10.1.0.0/24, fd00:1::/64"},
		{"two out of one", asking(planOf("", pool("10.1.0.0/24")), "10.1.0.7", "10.1.0.8"), "", "", "10.1.0.7 is asked for already"},
		{"no pool", planOf(""), "", "", "no pool"},
		{"pools overlap", planOf("", pool("10.1.0.0/24"), pool("10.1.0.0/16")), "", "", "overlap"},
		{"too small", planOf("", pool("10.1.0.0/31")), "", "", "too small"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.plan.DataDir = t.TempDir()
			j := &journal{t: t}
			addrs, gateways, err := Allocate(t.Context(), tt.plan, "c1", j.record)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("error %q, want one line with %q", err, tt.fault)
				}
				if left := leaseFiles(t, tt.plan.DataDir); len(left) > 0 {
					t.Fatalf("leases are left: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(addrs); got != tt.addrs {
				t.Errorf("addresses %s, want %s", got, tt.addrs)
			}
			if got := fmt.Sprint(gateways); got != tt.gateways {
				t.Errorf("gateways %s, want %s", got, tt.gateways)
			}
			if len(j.objects) != len(addrs) {
				t.Errorf("%d records for %d addresses", len(j.objects), len(addrs))
			}
			for _, o := range j.objects {
				for range 2 {
					if err := Undo(o); err != nil {
						t.Error(err)
					}
				}
			}
			if left := leaseFiles(t, tt.plan.DataDir); len(left) > 0 {
				t.Errorf("leases are left: %v", left)
			}
		})
	}
}

func TestAllocateNoIPAM(t *testing.T) {
	t.Parallel()
	p := planOf("/nowhere")
	p.IPAM = ""
	if addrs, _, err := Allocate(t.Context(), p, "c1", nil); err != nil || addrs != nil {
		t.Errorf("%v, %v", addrs, err)
	}
	if _, _, err := Allocate(t.Context(), asking(p, "10.1.0.2/24"), "c1", nil); err == nil {
		t.Error("an address where nothing gives one: no error")
	}
}

// TestRoundRobin: an address that was just given back is not the next to be given.
func TestRoundRobin(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/29"))
	var got []string
	for range 7 {
		j := &journal{t: t}
		addrs, _, err := Allocate(t.Context(), p, "c1", j.record)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, addrs[0].Addr().String())
		if err := Undo(j.objects[0]); err != nil {
			t.Fatal(err)
		}
	}
	if s := strings.Join(got, " "); s != "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6 10.1.0.2 10.1.0.3" {
		t.Error(s)
	}
}

func TestBusyAndEmpty(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/29"))
	for i := range 5 {
		if _, _, err := Allocate(t.Context(), p, fmt.Sprint("c", i), (&journal{t: t}).record); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(p.DataDir, "lan", "10.1.0.4"), old, old); err != nil {
		t.Fatal(err)
	}
	j := &journal{t: t}
	_, _, err := Allocate(t.Context(), p, "c9", j.record)
	want := `pool 10.1.0.0/29: empty: 5 of 5 addresses are taken, 10.1.0.4 for longest, by container "c2" (eth0); nsinit gc frees what killed containers left`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if len(j.objects) != 0 {
		t.Errorf("recorded %v, and took nothing", j.objects)
	}
	if err := Undo(netsetup.Object{Kind: "lease", Network: "lan", Name: "10.1.0.5", Owner: "c3", IfName: "eth0", Dir: p.DataDir}); err != nil {
		t.Fatal(err)
	}
	_, _, err = Allocate(t.Context(), asking(p, "10.1.0.3"), "c9", j.record)
	want = `address 10.1.0.3: taken by container "c1" (eth0); end it (nsinit delete), or remove what a killed one left (nsinit gc); 10.1.0.5 is free`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestSecondFails: what was taken goes back when a later set has nothing left.
func TestSecondFails(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/24"), pool("10.2.0.0/30"))
	if _, _, err := Allocate(t.Context(), p, "c1", (&journal{t: t}).record); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Allocate(t.Context(), p, "c2", (&journal{t: t}).record); err == nil {
		t.Fatal("no error")
	}
	if left := leaseFiles(t, p.DataDir); !slices.Equal(left, []string{"10.1.0.2", "10.2.0.2"}) {
		t.Error(left)
	}
}

func TestRecordFails(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/24"))
	j := &journal{t: t, fault: errors.New("disk is full")}
	_, _, err := Allocate(t.Context(), p, "c1", j.record)
	if !errors.Is(err, j.fault) {
		t.Errorf("error %v", err)
	}
	if left := leaseFiles(t, p.DataDir); len(left) > 0 {
		t.Errorf("leases without a record: %v", left)
	}
}

// TestLockHeld: a holder that hangs doesn't hang the start.
func TestLockHeld(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/24"))
	path := filepath.Join(p.DataDir, "lan", "lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := openLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err = Allocate(ctx, p, "c1", (&journal{t: t}).record); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	if _, _, err = Allocate(t.Context(), p, "c1", (&journal{t: t}).record); err != nil {
		t.Errorf("after the lock was free: %v", err)
	}
}

func TestUndoLeavesOthers(t *testing.T) {
	t.Parallel()
	const whole = "c1\r\neth0"
	tests := []struct{ name, content, object string }{
		{"ours", whole, "gone"},
		{"torn before the first byte", "", "gone"},
		{"torn in the id", "c", "gone"},
		{"torn in the interface", "c1\r\net", "gone"},
		{"another container", "c2\r\neth0", "left"},
		{"a longer id", "c11\r\neth0", "left"},
		{"another interface", "c1\r\neth1", "left"},
		{"garbage", "\x00\x01", "left"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := netsetup.Object{Kind: "lease", Network: "lan", Name: "10.1.0.9", Owner: "c1", IfName: "eth0", Dir: t.TempDir()}
			path := filepath.Join(o.Dir, o.Network, o.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Undo(o); err != nil {
				t.Fatal(err)
			}
			_, err := os.Lstat(path)
			if gone := errors.Is(err, os.ErrNotExist); gone != (tt.object == "gone") {
				t.Errorf("%q: gone is %v, want it %s", tt.content, gone, tt.object)
			}
		})
	}
}

func TestUndoHostileRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, o := range []netsetup.Object{
		{Kind: "lease", Network: "lan", Name: "../../etc/passwd", Dir: dir},
		{Kind: "lease", Network: "../lan", Name: "10.1.0.2", Dir: dir},
		{Kind: "lease", Network: "lan", Name: "lock", Dir: dir},
		{Kind: "link", Network: "lan", Name: "10.1.0.2", Dir: dir},
	} {
		if err := Undo(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	gone := netsetup.Object{Kind: "lease", Network: "never", Name: "10.1.0.2", Dir: filepath.Join(dir, "none")}
	if err := Undo(gone); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Error("undoing made a file")
	}
}

// TestDamagedLease: a file that nobody can read is an address that is taken.
func TestDamagedLease(t *testing.T) {
	t.Parallel()
	p := planOf(t.TempDir(), pool("10.1.0.0/24"))
	if err := os.MkdirAll(filepath.Join(p.DataDir, "lan"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10.1.0.2": "", "10.1.0.3": "\x00garbage", "last_reserved_ip.0": "no address", "note.txt": "x",
	} {
		if err := os.WriteFile(filepath.Join(p.DataDir, "lan", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addrs, _, err := Allocate(t.Context(), p, "c1", (&journal{t: t}).record)
	if err != nil || addrs[0].String() != "10.1.0.4/24" {
		t.Errorf("%v, %v; want 10.1.0.4", addrs, err)
	}
	_, _, err = Allocate(t.Context(), asking(p, "10.1.0.2"), "c2", (&journal{t: t}).record)
	if err == nil || !strings.Contains(err.Error(), "taken by somebody unknown: its lease file is damaged") {
		t.Errorf("error %v", err)
	}
}

func FuzzLeaseFile(f *testing.F) {
	for _, s := range []string{"c1\r\neth0", "c1", "", "\r\n", "c1\neth0\n", "\x00", "a\r\nb\r\nc", strings.Repeat("x", 600)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		id, ifname := parseLease(content)
		if strings.ContainsAny(id+ifname, "\x00\x1b\n") {
			t.Errorf("%q: control characters in %q, %q", content, id, ifname)
		}
		if id == "" && ifname != "" {
			t.Errorf("%q: an interface of nobody", content)
		}
		if ours(string(content), netsetup.Object{Owner: "c1", IfName: "eth0"}) && id != "" && id != "c" && id != "c1" {
			t.Errorf("%q: taken for a lease of c1, read as %q", content, id)
		}
	})
}
