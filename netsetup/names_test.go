package netsetup

import (
	"net/netip"
	"strings"
	"testing"
)

// A faultCase is a value and what is said of it; "" = nothing is wrong.
type faultCase struct{ value, fault string }

func checkFaults(t *testing.T, check func(string) error, tests []faultCase) {
	t.Helper()
	for _, tt := range tests {
		err := check(tt.value)
		switch {
		case tt.fault == "" && err != nil:
			t.Errorf("%q: %v", tt.value, err)
		case tt.fault != "" && err == nil:
			t.Errorf("%q: no error, want %q", tt.value, tt.fault)
		case tt.fault != "" && !strings.Contains(err.Error(), tt.fault):
			t.Errorf("%q: %v, want %q", tt.value, err, tt.fault)
		case err != nil && strings.ContainsAny(err.Error(), "\n\x1b\x00"):
			t.Errorf("%q: %q is more than one printable line", tt.value, err)
		}
	}
}

func TestCheckIfName(t *testing.T) {
	t.Parallel()
	checkFaults(t, CheckIfName, []faultCase{
		{"eth0", ""},
		{"a", ""},
		{"123456789012345", ""},
		{"br-lan.5@x", ""},
		{"netz_ä", ""},
		{"", "empty"},
		{"1234567890123456", "16 bytes; an interface's name has at most 15"},
		{"ääääääää", "16 bytes"},
		{".", "no name"},
		{"..", "no name"},
		{"a/b", `'/' is not allowed`},
		{"a:b", `':' is not allowed`},
		{"a%d", `'%' is not allowed`},
		{"a b", "space is not allowed"},
		{"a\tb", "space is not allowed"},
		{"a\u00a0b", "space is not allowed"},
		{"a\x1bb", "not allowed"},
		{"a\x00b", "not allowed"},
		{"a\u202eb", "not allowed"},
		{"a\xffb", "byte 1 is no UTF-8"},
		{"all", "the kernel's settings"},
		{"default", "the kernel's settings"},
		{"lo", "loopback"},
		{"-e", "flag"},
	})
}

func TestCheckNetworkName(t *testing.T) {
	t.Parallel()
	checkFaults(t, CheckNetworkName, []faultCase{
		{"lan", ""},
		{"0", ""},
		{"Lan-1_x.y", ""},
		{"", "empty"},
		{"-lan", `'-' is not allowed here`},
		{"..", `'.' is not allowed here`},
		{"a/b", `'/' is not allowed`},
		{"a b", `' ' is not allowed`},
		{"lan\n", `'\n' is not allowed`},
		{"län", "not allowed"},
		{strings.Repeat("a", 256), "256 bytes"},
	})
}

func TestCheckPluginType(t *testing.T) {
	t.Parallel()
	checkFaults(t, checkPluginType, []faultCase{
		{"bridge", ""},
		{"my plugin", "space"},
		{"", "empty"},
		{".", "no plugin's name"},
		{"..", "no plugin's name"},
		{"../../sbin/reboot", `'/' is not allowed`},
		{`a\b`, "not allowed"},
		{"a\x00", "not allowed"},
	})
}

func TestParseMAC(t *testing.T) {
	t.Parallel()
	checkFaults(t, func(s string) error { _, err := ParseMAC(s); return err }, []faultCase{
		{"02:00:00:00:00:01", ""},
		{"02-00-00-00-00-0A", ""},
		{"", "not a MAC address"},
		{"02:00:00:00:00", "not a MAC address"},
		{"02:00:00:00:00:zz", "not a MAC address"},
		{"02:00:00:00:00:00:00", "not a MAC address"},
		{"02:00:00:00:00:00:00:01", "8 bytes"},
		{"00:00:00:00:00:00", "all zero"},
		{"01:00:5e:00:00:01", "multicast"},
		{"ff:ff:ff:ff:ff:ff", "multicast"},
	})
}

func TestCheckMTU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mtu  int
		ipv6 bool
		ok   bool
	}{{0, true, true}, {68, false, true}, {67, false, false}, {1279, false, true}, {1279, true, false}, {1280, true, true}, {65535, true, true}, {65536, false, false}, {-1, false, false}} {
		if err := CheckMTU(tt.mtu, tt.ipv6); (err == nil) != tt.ok {
			t.Errorf("%d, IPv6 %v: %v", tt.mtu, tt.ipv6, err)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	check := func(s string) error {
		if p, err := netip.ParsePrefix(s); err == nil {
			return CheckAddress(p)
		}
		return CheckAddress(netip.PrefixFrom(netip.MustParseAddr(s), -1))
	}
	checkFaults(t, check, []faultCase{
		{"10.1.0.2/24", ""},
		{"10.1.0.2", ""},
		{"10.1.0.2/32", ""},
		{"10.1.0.2/31", ""},
		{"10.1.0.3/31", ""},
		{"169.254.7.7/16", ""},
		{"fd00::2/64", ""},
		{"fe80::2/64", ""},
		{"fd00::2/128", ""},
		{"fd00::/127", ""},
		{"10.1.0.0/24", "the address of network 10.1.0.0/24 itself; 10.1.0.1 is the first"},
		{"10.1.0.255/24", "the broadcast address of 10.1.0.0/24; 10.1.0.254 is the last"},
		{"fd00::/64", "the address of network fd00::/64 itself"},
		{"0.0.0.0/24", "any address"},
		{"0.1.2.3/24", "0.0.0.0/8"},
		{"224.0.0.1/24", "multicast"},
		{"255.255.255.255/24", "reserved"},
		{"240.0.0.1/24", "reserved"},
		{"127.0.0.2/8", "loopback"},
		{"::1/128", "loopback"},
		{"::/64", "any address"},
		{"ff02::1/64", "multicast"},
		{"::ffff:10.1.0.2/120", "IPv4 in IPv6; write 10.1.0.2"},
		{"10.1.0.2/0", "the whole internet"},
	})
}

func TestCheckSubnet(t *testing.T) {
	t.Parallel()
	subnet := func(prefix, gateway, start, end string) Subnet {
		addr := func(s string) netip.Addr { a, _ := netip.ParseAddr(s); return a }
		p, _ := netip.ParsePrefix(prefix)
		return Subnet{Prefix: p, Gateway: addr(gateway), RangeStart: addr(start), RangeEnd: addr(end)}
	}
	for _, tt := range []struct {
		subnet Subnet
		fault  string
	}{
		{subnet("10.1.0.0/24", "", "", ""), ""},
		{subnet("10.1.0.0/30", "10.1.0.1", "10.1.0.2", "10.1.0.2"), ""},
		{subnet("fd00::/64", "fd00::1", "", ""), ""},
		{subnet("", "", "", ""), "not a subnet"},
		{subnet("10.1.0.5/24", "", "", ""), "has host bits; the subnet is 10.1.0.0/24"},
		{subnet("10.1.0.0/31", "", "", ""), "too small for a pool; at most /30"},
		{subnet("fd00::/127", "", "", ""), "at most /126"},
		{subnet("224.0.0.0/24", "", "", ""), "no addresses for hosts"},
		{subnet("127.0.0.0/24", "", "", ""), "no addresses for hosts"},
		{subnet("10.1.0.0/24", "10.2.0.1", "", ""), "gateway: \"10.2.0.1\": outside of 10.1.0.0/24"},
		{subnet("10.1.0.0/24", "10.1.0.0", "", ""), "gateway: \"10.1.0.0\": the address of network"},
		{subnet("10.1.0.0/24", "", "10.1.1.1", ""), "rangeStart"},
		{subnet("10.1.0.0/24", "", "", "10.1.0.255"), "rangeEnd: \"10.1.0.255\": the broadcast address"},
		{subnet("10.1.0.0/24", "", "10.1.0.9", "10.1.0.5"), "rangeEnd 10.1.0.5 lies before rangeStart 10.1.0.9"},
		{subnet("10.1.0.0/24", "fd00::1", "", ""), "gateway"},
	} {
		checkFaults(t, func(string) error { return CheckSubnet(tt.subnet) }, []faultCase{{tt.subnet.Prefix.String(), tt.fault}})
	}
}

func TestCheckGateway(t *testing.T) {
	t.Parallel()
	addrs := []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
	checkFaults(t, func(s string) error { return CheckGateway(netip.MustParseAddr(s), addrs) }, []faultCase{
		{"10.1.0.1", ""},
		{"fd00::1", ""},
		{"fe80::1", ""},
		{"10.1.0.2", "the interface's own address"},
		{"10.1.0.0", "the address of network"},
		{"10.1.0.255", "the broadcast address"},
		{"10.2.0.1", "outside of 10.1.0.0/24; an address inside"},
		{"fd01::1", "outside of fd00::/64"},
		{"0.0.0.0", "any address"},
	})
	pool := []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("10.1.0.2"), -1)}
	if err := CheckGateway(netip.MustParseAddr("10.9.0.1"), pool); err != nil {
		t.Errorf("the pool's subnet isn't known yet: %v", err)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"bridge", "gateway", "mtu", "ip", "interface_name"}
	for given, want := range map[string]string{
		"birdge": "bridge", "BRIDGE": "bridge", "gatway": "gateway", "mtuu": "mtu", "interfacename": "interface_name",
		"ipp": "ip", "q": "", "": "", "completely-else": "", strings.Repeat("bridge", 1000): "",
	} {
		if got := nearest(given, words); got != want {
			t.Errorf("%.20q: %q, want %q", given, got, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 100)
	for s, want := range map[string]string{
		"a\nb": `"a\nb"`, long: `"` + strings.Repeat("ä", 32) + `"...`, "x" + long: `"x` + strings.Repeat("ä", 31) + `"...`,
	} {
		if got := quoted(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
