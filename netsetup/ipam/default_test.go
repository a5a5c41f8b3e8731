package ipam

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

// A fakeHost has the routes and links that a test says.
type fakeHost struct {
	table  []hostRoute
	links  map[string]int
	noIPv6 bool
	dumps  int
	fault  error
}

func (f *fakeHost) routes(context.Context) ([]hostRoute, error) {
	f.dumps++
	return f.table, f.fault
}
func (f *fakeHost) index(name string) (int, error) { return f.links[name], nil }
func (f *fakeHost) ipv6() bool                     { return !f.noIPv6 }
func (f *fakeHost) linkName(index int) string {
	for name, i := range f.links {
		if i == index {
			return name
		}
	}
	return "gone"
}

func (f *fakeHost) add(prefix, link string) {
	f.table = append(f.table, hostRoute{netip.MustParsePrefix(prefix), f.links[link]})
}

func newTestDefault(t testing.TB, strategy string) (*defaultNetwork, *fakeHost) {
	host := &fakeHost{links: map[string]int{"lo": 1, "eth9": 9}}
	d := newDefault(t.TempDir(), strategy)
	d.leases, d.host = t.TempDir(), host
	return d, host
}

func mustNetwork(t testing.TB, d *defaultNetwork) (*netsetup.Network, pools) {
	t.Helper()
	n, err := d.network(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := poolsOf(n)
	if err != nil {
		t.Fatal(err)
	}
	return n, p
}

func TestDefaultIsRemembered(t *testing.T) {
	t.Parallel()
	d, host := newTestDefault(t, "bridge")
	n, first := mustNetwork(t, d)
	if n.Name != "nsinit" || n.Plugins[0].Type != "bridge" || len(n.Warnings) > 0 {
		t.Errorf("%+v", n)
	}
	if first.v4.String() != "10.200.0.0/20" || first.v6.Bits() != 64 || !strings.HasPrefix(first.v6.String(), "fd") {
		t.Errorf("%+v", first)
	}
	info, err := os.Stat(d.file())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	host.links["nsinit0"] = 5
	host.add(first.v4.String(), "nsinit0")
	dumps := host.dumps
	if _, again := mustNetwork(t, d); again != first {
		t.Errorf("%+v, then %+v", first, again)
	}
	if host.dumps != dumps {
		t.Error("the host's routes were read though the bridge is there")
	}
}

func TestDefaultAvoidsRoutes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		routes []string
		want   string // "" = an error
	}{
		{"a default route", []string{"0.0.0.0/0"}, "10.200.0.0/20"},
		{"the same", []string{"10.200.0.0/20"}, "10.200.16.0/20"},
		{"an address inside", []string{"10.200.15.1/32"}, "10.200.16.0/20"},
		{"a wider one", []string{"10.200.0.0/16"}, "10.201.0.0/20"},
		{"all of ten", []string{"10.0.0.0/8"}, "172.16.0.0/20"},
		{"ten and 172", []string{"10.0.0.0/8", "172.16.0.0/12"}, "192.168.0.0/20"},
		{"halves of the internet, as VPNs do", []string{"0.0.0.0/1", "128.0.0.0/2"}, "192.168.0.0/20"},
		{"everything", []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, host := newTestDefault(t, "bridge")
			for _, r := range tt.routes {
				host.add(r, "eth9")
			}
			n, err := d.network(t.Context())
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "name a subnet") {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p, err := poolsOf(n); err != nil || p.v4.String() != tt.want {
				t.Errorf("%+v, %v; want %s", p, err, tt.want)
			}
		})
	}
}

// TestDefaultMoves: a route that came in the way while the bridge wasn't there.
func TestDefaultMoves(t *testing.T) {
	t.Parallel()
	d, host := newTestDefault(t, "bridge")
	_, first := mustNetwork(t, d)
	host.add("10.200.3.0/24", "eth9")
	lease := filepath.Join(d.leases, "nsinit", "10.200.0.2")
	if err := os.MkdirAll(filepath.Dir(lease), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lease, []byte("c1\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.network(t.Context())
	if err == nil || !strings.Contains(err.Error(), "subnet 10.200.0.0/20: the host's route 10.200.3.0/24 dev eth9 is in the way, and 1 addresses are leased, as 10.200.0.2") {
		t.Fatalf("error %v", err)
	}
	if err := os.Remove(lease); err != nil {
		t.Fatal(err)
	}
	_, moved := mustNetwork(t, d)
	if moved.v4.String() != "10.200.16.0/20" || moved.v6 != first.v6 {
		t.Errorf("%+v, from %+v", moved, first)
	}
	if _, again := mustNetwork(t, d); again != moved {
		t.Errorf("not remembered: %+v, then %+v", moved, again)
	}
}

// TestDefaultBridgeAppears: another process makes the bridge between the first
// look and the dump; its own route isn't in the way.
func TestDefaultBridgeAppears(t *testing.T) {
	t.Parallel()
	d, host := newTestDefault(t, "bridge")
	_, first := mustNetwork(t, d)
	host.links["nsinit0"] = 5
	host.add(first.v4.String(), "nsinit0")
	n, err := d.settle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := poolsOf(n); p != first {
		t.Errorf("%+v, then %+v", first, p)
	}
}

func TestDefaultTwoAtOnce(t *testing.T) {
	t.Parallel()
	d, _ := newTestDefault(t, "bridge")
	var wg sync.WaitGroup
	var got [8]pools
	for i := range got {
		wg.Go(func() {
			one := *d
			one.host = &fakeHost{}
			n, err := one.network(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			got[i], _ = poolsOf(n)
		})
	}
	wg.Wait()
	for _, p := range got {
		if p != got[0] {
			t.Errorf("%+v and %+v", got[0], p)
		}
	}
	if entries, _ := os.ReadDir(d.dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestDefaultWithoutIPv6(t *testing.T) {
	t.Parallel()
	d, host := newTestDefault(t, "bridge")
	host.noIPv6 = true
	if _, p := mustNetwork(t, d); p.v6.IsValid() || !p.v4.IsValid() {
		t.Errorf("%+v", p)
	}
	host.noIPv6 = false
	if _, p := mustNetwork(t, d); !p.v6.IsValid() {
		t.Error("the IPv6 subnet was not remembered")
	}
}

// TestDefaultsApart: the default networks have no subnet in common, though the
// routes of neither are there.
func TestDefaultsApart(t *testing.T) {
	t.Parallel()
	link, host := newTestDefault(t, "ptp")
	_, first := mustNetwork(t, link)
	bridge := newDefault(filepath.Dir(link.dir), "bridge")
	bridge.leases, bridge.host = link.leases, host
	_, second := mustNetwork(t, bridge)
	if first.v4.Overlaps(second.v4) || first.v6.Overlaps(second.v6) {
		t.Errorf("%+v and %+v", first, second)
	}
}

func TestDefaultDamagedFile(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{", `{"name":"nsinit"}`} {
		d, _ := newTestDefault(t, "bridge")
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.file(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.network(t.Context()); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%q: error %v", content, err)
		}
	}
}

func TestDefaultDumpFails(t *testing.T) {
	t.Parallel()
	d, host := newTestDefault(t, "bridge")
	host.fault = errors.New("no memory")
	if _, err := d.network(t.Context()); !errors.Is(err, host.fault) {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(d.dir); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

// TestDefaultUserEdit: a family that somebody took out stays out.
func TestDefaultUserEdit(t *testing.T) {
	t.Parallel()
	d, _ := newTestDefault(t, "bridge")
	mustNetwork(t, d)
	edited := `{"cniVersion":"1.1.0","name":"nsinit","plugins":[{"type":"bridge","bridge":"nsinit0",` +
		`"ipam":{"type":"host-local","ranges":[[{"subnet":"10.66.0.0/24"}]]}}]}`
	if err := os.WriteFile(d.file(), []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, p := mustNetwork(t, d); p.v6.IsValid() || p.v4.String() != "10.66.0.0/24" {
		t.Errorf("%+v", p)
	}
}

// TestDefaultPlans: what is remembered is what the strategies take.
func TestDefaultPlans(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"bridge", "ptp"} {
		d, _ := newTestDefault(t, strategy)
		n, p := mustNetwork(t, d)
		plans, err := netsetup.PlanAll([]netsetup.Request{{Network: n, Strategy: strategy, Source: "--network " + strategy}})
		if err != nil {
			t.Fatal(err)
		}
		got := plans[0]
		if got.IfName != "eth0" || got.IPAM != "host-local" || !got.Masquerade || len(got.Subnets) != 2 ||
			got.Subnets[0].Prefix != p.v4 || got.Subnets[1].Prefix != p.v6 {
			t.Errorf("%s: %+v", strategy, got)
		}
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	d, _ := newTestDefault(t, "bridge")
	state := filepath.Dir(d.dir)
	_, p := mustNetwork(t, d)
	parse := func(s string) netsetup.Request {
		r, err := netsetup.ParseFlag(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	inside := netip.PrefixFrom(p.v4.Addr().Next().Next(), p.v4.Bits())
	tests := []struct{ flag, network string }{
		{"bridge:ip=10.1.0.2/24", "bridge-"},
		{"bridge:ip=" + inside.String(), "nsinit"},
		{"bridge:bridge=br0,ip=" + inside.String(), "bridge-br0"},
		{"ptp:ip=10.1.0.2/24", "ptp-"},
	}
	for _, tt := range tests {
		r := parse(tt.flag)
		if err := Fill(t.Context(), nil, state, &r); err != nil {
			t.Fatal(err)
		}
		if r.Network == nil || !strings.HasPrefix(r.Network.Name, tt.network) {
			t.Errorf("%s: network %+v, want %s", tt.flag, r.Network, tt.network)
		}
	}
	if r := parse("ns:/run/netns/x"); Fill(t.Context(), nil, state, &r) != nil || r.Network != nil {
		t.Errorf("%+v", r)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	d, _ := newTestDefault(t, "bridge")
	if ok, err := d.forget(t.Context()); ok || err != nil {
		t.Errorf("nothing remembered: %v, %v", ok, err)
	}
	mustNetwork(t, d)
	lease := filepath.Join(d.leases, "nsinit", "10.200.0.2")
	if err := os.MkdirAll(filepath.Dir(lease), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lease, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.forget(t.Context()); ok || err != nil {
		t.Errorf("a lease is held: %v, %v", ok, err)
	}
	if err := os.Remove(lease); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.forget(t.Context()); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// TestForgetIsVisible is for gc --all, which tells what it removed.
func TestForgetIsVisible(t *testing.T) {
	t.Parallel()
	names, err := Forget(t.Context(), t.TempDir())
	if err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func BenchmarkDefault(b *testing.B) {
	d, host := newTestDefault(b, "bridge")
	if _, err := d.network(context.Background()); err != nil {
		b.Fatal(err)
	}
	host.links["nsinit0"] = 5
	for b.Loop() {
		if _, err := d.network(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
