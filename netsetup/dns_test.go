package netsetup

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// attOf is an attachment with addresses and a way out.
func attOf(addrs ...string) Attachment {
	a := Attachment{Network: "lan", IfName: "eth0", NoIPv6: true}
	for _, s := range addrs {
		p := netip.MustParsePrefix(s)
		a.Addresses = append(a.Addresses, p)
		a.Gateways = append(a.Gateways, p.Masked().Addr().Next())
		a.NoIPv6 = a.NoIPv6 && p.Addr().Is4()
	}
	return a
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	both := []Attachment{attOf("10.1.0.2/24", "fd00::2/64")}
	v4, v6 := []Attachment{attOf("10.1.0.2/24")}, []Attachment{attOf("fd00::2/64")}
	internal := attOf("10.1.0.2/24")
	internal.Gateways = nil
	withDNS := attOf("10.1.0.2/24")
	withDNS.DNS = DNS{Nameservers: []string{"10.1.0.53"}, Domain: "lan"}
	second := attOf("10.2.0.2/24")
	second.DNS = DNS{Nameservers: []string{"10.2.0.53", "10.1.0.53"}, Search: []string{"two"}, Options: []string{"ndots:2"}}
	const host = "# made by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch corp.example example\noptions edns0\noptions ndots:3\n"
	long := strings.Repeat("x", 100)
	tests := []struct {
		name     string
		host     string
		flags    DNS
		atts     []Attachment
		want     string
		loopback string
	}{
		{"the host's", host, DNS{}, both, "search corp.example example|nameserver 192.0.2.1|nameserver 2001:db8::1|options edns0 ndots:3|", "[]"},
		{"IPv4 only", host, DNS{}, v4, "search corp.example example|nameserver 192.0.2.1|options edns0 ndots:3|", "[]"},
		{"IPv6 only", host, DNS{}, v6, "search corp.example example|nameserver 2001:db8::1|options edns0 ndots:3|", "[]"},
		{"no interface of ours", host, DNS{}, nil, "search corp.example example|nameserver 192.0.2.1|nameserver 2001:db8::1|options edns0 ndots:3|", "[]"},
		{"internal network", host, DNS{}, []Attachment{internal}, "options edns0 ndots:3|", "[]"},
		{"internal network, stub", "nameserver 127.0.0.1\n", DNS{}, []Attachment{internal}, "", "[]"},
		{"server by flag", host, DNS{Nameservers: []string{"10.9.0.9"}}, both, "search corp.example example|nameserver 10.9.0.9|options edns0 ndots:3|", "[]"},
		{"loopback by flag", host, DNS{Nameservers: []string{"127.0.0.1"}}, both, "search corp.example example|nameserver 127.0.0.1|options edns0 ndots:3|", "[]"},
		{"no search by flag", host, DNS{Search: []string{"."}}, both, "nameserver 192.0.2.1|nameserver 2001:db8::1|options edns0 ndots:3|", "[]"},
		{"all by flag", host, DNS{Nameservers: []string{"10.9.0.9", "fd00::53"}, Search: []string{"a", "b"}, Options: []string{"rotate"}}, both, "search a b|nameserver 10.9.0.9|nameserver fd00::53|options rotate|", "[]"},
		{"by networks", host, DNS{}, []Attachment{withDNS, second}, "search lan two|nameserver 10.1.0.53|nameserver 10.2.0.53|options ndots:2|", "[]"},
		{"flag before network", host, DNS{Nameservers: []string{"10.9.0.9"}}, []Attachment{withDNS}, "search lan|nameserver 10.9.0.9|options edns0 ndots:3|", "[]"},
		{"loopback", "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.1\n", DNS{}, both, "nameserver 192.0.2.1|", "[127.0.0.1:53 [::1]:53]"},
		{"any address is this host's", "nameserver 0.0.0.0\n", DNS{}, both, "", "[127.0.0.1:53]"},
		{"link-local", "nameserver fe80::1%eth0\nnameserver fe80::2\nnameserver 192.0.2.1\n", DNS{}, both, "nameserver 192.0.2.1|", "[]"},
		{"four servers", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", DNS{}, both, "nameserver 192.0.2.1|nameserver 192.0.2.2|nameserver 192.0.2.3|", "[]"},
		{"the last search counts", "search a\ndomain b\nsearch c d\n", DNS{}, both, "search c d|", "[]"},
		{"the last domain counts", "search a\ndomain b c\n", DNS{}, both, "search b|", "[]"},
		{"seven domains", "search a b c d e f g\n", DNS{}, both, "search a b c d e f|", "[]"},
		{"long domains", "search " + long + " " + long + " " + long + "\n", DNS{}, both, "search " + long + " " + long + "|", "[]"},
		{"what glibc doesn't read", " nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver\nNameserver 192.0.2.3\nnameserver x\nnameserver\t192.0.2.4 # here\n", DNS{}, both, "nameserver 192.0.2.4|", "[]"},
		{"hostile", "search a\x1b[2J b\x00 ok\noptions \xff\n", DNS{}, both, "search ok|", "[]"},
		{"empty", "", DNS{}, both, "", "[]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, t.TempDir(), "resolv.conf", tt.host)
			content, loopback, err := ResolvConf(path, tt.flags, tt.atts)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(string(content), "\n", "|"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if got := fmt.Sprint(loopback); got != tt.loopback {
				t.Errorf("loopback %s, want %s", got, tt.loopback)
			}
		})
	}
}

func TestResolversStub(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stub := writeFile(t, dir, "stub", "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n")
	behind := writeFile(t, dir, "behind", "nameserver 192.0.2.7\nsearch other\n")
	empty := writeFile(t, dir, "empty", "# none\n")
	mixed := writeFile(t, dir, "mixed", "nameserver 127.0.0.53\nnameserver 192.0.2.1\n")
	for _, tt := range []struct{ host, behind, want, loopback string }{
		{stub, behind, "search lan|nameserver 192.0.2.7|options edns0 trust-ad|", "[]"},
		{stub, dir + "/none", "search lan|nameserver 10.1.0.1|options edns0 trust-ad|", "[127.0.0.53:53]"},
		{stub, empty, "search lan|nameserver 10.1.0.1|options edns0 trust-ad|", "[127.0.0.53:53]"},
		{mixed, behind, "nameserver 10.1.0.1|nameserver 192.0.2.1|", "[127.0.0.53:53]"},
	} {
		r, err := newResolvers(tt.host, tt.behind, DNS{}, []Attachment{attOf("10.1.0.2/24")})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(string(r.Content(netip.MustParseAddr("10.1.0.1"))), "\n", "|")
		if got != tt.want || fmt.Sprint(r.Loopback()) != tt.loopback {
			t.Errorf("%s: %s, %v; want %s, %s", filepath.Base(tt.host), got, r.Loopback(), tt.want, tt.loopback)
		}
	}
	r, err := newResolvers(stub, empty, DNS{}, nil)
	if err != nil || !strings.Contains(string(r.HostContent()), "nameserver 127.0.0.53\n") {
		t.Errorf("in the host's own namespace: %q, %v", r.HostContent(), err)
	}
}

// TestResolvConfMissing: a host without the file has nothing to say.
func TestResolvConfMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dangling, loop := filepath.Join(dir, "dangling"), filepath.Join(dir, "loop")
	for link, target := range map[string]string{dangling: "../run/none", loop: "loop"} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	file := writeFile(t, dir, "file", "x")
	for _, path := range []string{"", dir + "/none", dangling, loop, dir, file + "/resolv.conf", "/dev/null"} {
		content, loopback, err := ResolvConf(path, DNS{}, nil)
		if err != nil || len(content) > 0 || loopback != nil {
			t.Errorf("%s: %q, %v, %v", path, content, loopback, err)
		}
	}
}

func TestResolvConfFaults(t *testing.T) {
	t.Parallel()
	many := func(n int, s string) (all []string) {
		for range n {
			all = append(all, s)
		}
		return all
	}
	for _, tt := range []struct {
		dns   DNS
		fault string
	}{
		{DNS{Nameservers: []string{"dns.example"}}, `--dns: "dns.example": not an address`},
		{DNS{Nameservers: many(4, "10.1.0.1")}, "--dns: 4 servers; a resolver reads 3"},
		{DNS{Search: many(7, "a")}, "--dns search: 7 domains in 13 bytes; a resolver reads 6 in 256"},
		{DNS{Search: many(3, strings.Repeat("x", 100))}, "3 domains in 302 bytes"},
		{DNS{Search: []string{"a b"}}, `--dns search: "a b": character ' ' is not allowed`},
		{DNS{Search: []string{"a\nnameserver 192.0.2.66"}}, "not allowed"},
		{DNS{Options: []string{""}}, `--dns option: "": empty`},
		{DNS{Options: []string{"a\tb"}}, "not allowed"},
		{DNS{Domain: "a b"}, "not allowed"},
	} {
		_, _, err := ResolvConf("", tt.dns, nil)
		if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: error %v, want %q", tt.dns, err, tt.fault)
		}
		_, _, err = ResolvConf("", DNS{}, []Attachment{{Network: "lan", DNS: tt.dns}})
		if err == nil || !strings.HasPrefix(err.Error(), "network lan: dns") {
			t.Errorf("%+v of a network: error %v", tt.dns, err)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	gateways := []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	const local = "127.0.0.1\tlocalhost|::1\tlocalhost ip6-localhost ip6-loopback|"
	for _, tt := range []struct {
		hostname string
		addrs    []netip.Addr
		add      []HostName
		want     string
	}{
		{"", nil, nil, local},
		{"c1", nil, nil, local + "127.0.0.1\tc1|"},
		{"c1", addrs, nil, local + "10.1.0.2\tc1|fd00::2\tc1|"},
		{"c1.lan", addrs[:1], nil, local + "10.1.0.2\tc1.lan c1|"},
		{"c1", addrs[:1], []HostName{{"db", "10.9.0.9"}, {"six", "[fd00::9]"}}, "10.9.0.9\tdb|fd00::9\tsix|" + local + "10.1.0.2\tc1|"},
		{"c1", addrs[:1], []HostName{{"host.docker.internal", "host-gateway"}}, "10.1.0.1\thost.docker.internal|" + local + "10.1.0.2\tc1|"},
	} {
		content, err := Hosts(tt.hostname, tt.addrs, gateways, tt.add)
		if got := strings.ReplaceAll(string(content), "\n", "|"); err != nil || got != tt.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		hostname string
		add      HostName
		fault    string
	}{
		{"c1", HostName{"db", "x"}, `add-host: "db:x": "x" is no address; as NAME:10.1.0.9`},
		{"c1", HostName{"", "10.1.0.1"}, "empty"},
		{"c1", HostName{"a b", "10.1.0.1"}, "not allowed"},
		{"c1", HostName{"a\n10.1.0.1 evil", "10.1.0.1"}, "not allowed"},
		{"c1", HostName{"#a", "10.1.0.1"}, "not allowed"},
		{"c1", HostName{"a", "host-gateway"}, "no network with a gateway"},
		{"c 1", HostName{"a", "10.1.0.1"}, `hostname: "c 1": character ' ' is not allowed`},
	} {
		_, err := Hosts(tt.hostname, addrs, nil, []HostName{tt.add})
		if err == nil || !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%+v: error %v, want %q", tt.add, err, tt.fault)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	for _, s := range []string{
		"nameserver 192.0.2.1\nsearch a b\noptions edns0\n", "nameserver fe80::1%eth0\n", "domain x\n", "search " + strings.Repeat("a ", 300),
		"\x00", "nameserver", "nameserver 127.0.0.53\n", "options \xff \x1b\n", "nameserver ::ffff:127.0.0.1\n",
	} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "resolv.conf")
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := newResolvers(path, path, DNS{}, []Attachment{attOf("10.1.0.2/24", "fd00::2/64")})
		if err != nil {
			t.Fatal(err)
		}
		out := string(r.Content(netip.MustParseAddr("10.1.0.1")))
		again := parseResolvConf(out)
		if strings.ContainsAny(out, "\x00\x1b\r") || !utf8.ValidString(out) || strings.Count(out, "nameserver ") != len(again.servers) {
			t.Errorf("%q", out)
		}
		for _, a := range again.servers {
			if a.IsLoopback() || a.Zone() != "" {
				t.Errorf("server %v can't be reached from inside", a)
			}
		}
		if len(again.search) > maxSearch || len(strings.Join(again.search, " ")) > maxSearchBytes {
			t.Errorf("search %q", again.search)
		}
	})
}
