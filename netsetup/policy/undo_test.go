package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// One transaction fails as a whole when a single element of it is gone, or named twice.
func TestUndoTogether(t *testing.T) {
	l := newLab(t)
	_, a1 := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a1))
	before := zeroCounters(l.ruleset(t))
	_, a2 := l.container(t, "nsi0", 77, 3)
	check(t, l.masquerade(a2))
	second := l.records[len(l.records)-2:]
	again := append([]netsetup.Object{second[0]}, second...)
	for _, objects := range [][]netsetup.Object{second[:1], again, again} {
		check(t, l.Do(func() error { return Undo(t.Context(), objects...) }))
	}
	if got := zeroCounters(l.ruleset(t)); got != before {
		t.Errorf("left after undo:\n%s\nwas:\n%s", got, before)
	}
	err := l.Do(func() error { return Undo(t.Context(), netsetup.Object{Kind: KindSpoof, Name: "port"}, l.records[0]) })
	if want := `undo: macspoof port: "port" is not of the form PORT@MAC`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := l.ruleset(t); strings.Contains(got, "10.77.0.2") {
		t.Errorf("the other object stayed:\n%s", got)
	}
}

// Thousands of elements are more than one message, and more than a socket's usual buffer.
func TestUndoMany(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	before := zeroCounters(l.ruleset(t))
	many := make([]netsetup.Object, 20000)
	for i := range many {
		many[i] = netsetup.Object{Kind: KindMasquerade, Name: fmt.Sprintf("fd99::%x", i)}
	}
	check(t, l.add(many))
	if n := strings.Count(l.ruleset(t), "fd99::"); n != len(many) {
		t.Errorf("%d elements, want %d", n, len(many))
	}
	for range 2 {
		check(t, l.Do(func() error { return Undo(t.Context(), many...) }))
	}
	if got := zeroCounters(l.ruleset(t)); got != before {
		t.Error("left after undo")
	}
}

// The sockets are handed to the kernel to close, and it does so.
func TestSocketsAreClosed(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	for range 5 {
		check(t, l.masquerade(a))
		check(t, l.undoAll())
	}
	netsetuptest.Poll(t, func() error {
		var left []string
		for line := range strings.Lines(l.Run(t, "cat", "/proc/net/netlink").OK(t).Stdout) {
			fields := strings.Fields(line) // sk Eth Pid ...; 12 is NETLINK_NETFILTER, and the kernel's own has no Pid
			if len(fields) > 2 && fields[1] == "12" && fields[2] != "0" {
				left = append(left, line)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("sockets left:\n%s", strings.Join(left, ""))
		}
		return nil
	})
}

// Of every kind of object one is gone already: the others go all the same.
func TestUndoPartly(t *testing.T) {
	l := newLab(t)
	_, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	var objects []netsetup.Object
	for kind, names := range map[string][]string{
		KindMasquerade: {"10.77.0.9", "fd77::9"},
		KindResolver:   {"10.77.0.9@10.77.0.1>127.0.0.53:53"},
		KindForward:    {"veth9"},
		KindFirewall:   {"isolated@veth8>administrator"},
		KindHairpin:    {"10.77.0.9/24", "fd77::9/64"},
		KindPort:       {"*:8080/tcp", "*:9000-9009/udp", "192.0.2.1:53/udp", "[2001:db8::1]:443/tcp"},
		KindPortmap: {
			"*:8080/tcp>10.77.0.9:80", "*:8080/tcp>[fd77::9]:80", "*:9000-9009/udp>10.77.0.9:9000",
			"192.0.2.1:53/udp>10.77.0.9:53", "[2001:db8::1]:443/tcp>[fd77::9]:443",
		},
	} {
		for _, name := range names {
			objects = append(objects, netsetup.Object{Kind: kind, Name: name})
		}
	}
	undo := func(objects ...netsetup.Object) error { return Undo(t.Context(), objects...) }
	check(t, l.add(objects))
	check(t, l.Do(func() error { return undo(objects...) }))
	before := zeroCounters(l.ruleset(t)) // with the administrator's chain, which stays
	for _, o := range objects {
		check(t, l.add(objects))
		check(t, l.Do(func() error { return undo(o) }))
		check(t, l.Do(func() error { return undo(objects...) }))
		if got := zeroCounters(l.ruleset(t)); got != before {
			t.Fatalf("without %s %s, left:\n%s", o.Kind, o.Name, got)
		}
	}
}

// add puts what objects stand for into the table.
func (l *lab) add(objects []netsetup.Object) error {
	return l.Do(func() error {
		_, err := addElements(l.context(), "lan", elementsFor(objects...), l.opt)
		return err
	})
}
