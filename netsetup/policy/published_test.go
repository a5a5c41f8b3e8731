package policy

import "testing"

func FuzzPublished(f *testing.F) {
	for _, s := range []string{"*:80/tcp", "[2001:db8::1]:80-90/udp>[fd01::2]:80", "192.0.2.1:1-65535/sctp>10.1.0.2:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePublished(s)
		if err != nil {
			return
		}
		if again, err := parsePublished(p.String()); err != nil || again != p {
			t.Errorf("%q is %+v, written %s: %+v, %v", s, p, p, again, err)
		}
		p.takenElements()
		if p.to.IsValid() {
			p.mapKey()
		}
	})
}
