package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	type mapping = netsetup.PortMapping
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		in   string
		want mapping
		err  string
	}{
		{in: "80", want: mapping{ContainerPort: 80, Count: 1, Protocol: "tcp"}},
		{in: "80/udp", want: mapping{ContainerPort: 80, Count: 1, Protocol: "udp"}},
		{in: "8080:80", want: mapping{HostPort: 8080, ContainerPort: 80, Count: 1, Protocol: "tcp"}},
		{in: ":80", want: mapping{ContainerPort: 80, Count: 1, Protocol: "tcp"}},
		{in: "127.0.0.1:8080:80", want: mapping{HostPort: 8080, ContainerPort: 80, Count: 1, Protocol: "tcp", HostIP: v4}},
		{in: "127.0.0.1::80/SCTP", want: mapping{ContainerPort: 80, Count: 1, Protocol: "sctp", HostIP: v4}},
		{in: "[2001:db8::1]:8080:80", want: mapping{HostPort: 8080, ContainerPort: 80, Count: 1, Protocol: "tcp", HostIP: v6}},
		{in: "[2001:db8::1]::80", want: mapping{ContainerPort: 80, Count: 1, Protocol: "tcp", HostIP: v6}},
		{in: "8000-8010:9000-9010/tcp", want: mapping{HostPort: 8000, ContainerPort: 9000, Count: 11, Protocol: "tcp"}},
		{in: "80-89", want: mapping{ContainerPort: 80, Count: 10, Protocol: "tcp"}},
		{in: "1-65535:1-65535", want: mapping{HostPort: 1, ContainerPort: 1, Count: 65535, Protocol: "tcp"}},
		{in: "", err: `"" is no port`},
		{in: "0", err: `"0" is no port`},
		{in: "0:80", err: `host port: "0" is no port`},
		{in: "080", err: `"080" is no port`},
		{in: "65536", err: "is no port, 1 to 65535"},
		{in: "+80", err: "is no port"},
		{in: "80-", err: `"" is no port`},
		{in: "90-80", err: "the second port is below the first"},
		{in: "8000-8010:80", err: "11 host ports for 1 container ports"},
		{in: "80/icmp", err: `protocol: "icmp": unknown`},
		{in: "80/", err: "protocol"},
		{in: "host:80:80", err: `"host" is no IP address`},
		{in: "::1:80:80", err: "an IPv6 address stands in brackets"},
		{in: "[::1]:80:80", err: "nothing published can be reached at ::1"},
		{in: "[2001:db8::1]80", err: "a colon is missing"},
		{in: "[2001:db8::1]:80", err: "behind an address"},
		{in: "[2001:db8::1", err: "] is missing"},
		{in: "[]:80:80", err: "no address in the brackets"},
		{in: "[fe80::1%eth0]:80:80", err: "has a zone"},
		{in: "224.0.0.1:80:80", err: "an address of the host is wanted"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			got, err := parsePublish(tt.in)
			switch {
			case tt.err == "" && (err != nil || got != tt.want):
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func FuzzPublish(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1::80-90", "[::1]:1-2:3-4/sctp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parsePublish(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if m.HostPort == 0 {
			return
		}
		// What it is written as says the same.
		if again, err := parsePublish(m.String()); err != nil || again != m {
			t.Errorf("%q is %+v, written %s: %+v, %v", s, m, m, again, err)
		}
	})
}
