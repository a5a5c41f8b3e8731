package policy

import (
	"context"
	"net/netip"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
)

// BenchmarkStart is what one container's start and end cost on a host that has seen
// others: three sysctls and one route a family, a transaction for its start, and two
// for its end.
func BenchmarkStart(b *testing.B) {
	l := makeLab(b)
	_, a := l.container(b, "nsi0", 77, 2)
	a.Addresses = []netip.Prefix{netip.MustParsePrefix("10.77.0.9/24"), netip.MustParsePrefix("fd77::9/64")}
	check(b, l.masquerade(a))
	h, none := l.host(), func(netsetup.Object) error { return nil }
	link, err := linkOf(a)
	check(b, err)
	undo := func() {
		for _, o := range link.objects(KindMasquerade, addressNames(a), "") {
			check(b, Undo(context.Background(), o))
		}
	}
	check(b, l.Do(func() error {
		b.Run("masquerade", func(b *testing.B) {
			benchHere(b, l, func() { check(b, Masquerade(context.Background(), h, a, "", l.opt, none)) })
		})
		b.Run("enough", func(b *testing.B) {
			benchHere(b, l, func() {
				_, err := openForwarding(context.Background(), h, link, l.opt)
				check(b, err)
			})
		})
		b.Run("undo", func(b *testing.B) { benchHere(b, l, undo) })
		b.Run("foreign", func(b *testing.B) {
			benchHere(b, l, func() {
				_, err := Foreign(context.Background(), h)
				check(b, err)
			})
		})
		return nil
	}))
}

// benchHere repeats f on a thread in the host's namespace: b.Run has one of its own.
func benchHere(b *testing.B, l *lab, f func()) {
	check(b, l.Do(func() error {
		for b.Loop() {
			f()
		}
		return nil
	}))
}
