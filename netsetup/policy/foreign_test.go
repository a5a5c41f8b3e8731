package policy

import (
	"slices"
	"strings"
	"testing"
)

// foreign asks in the host's namespaces.
func (l *lab) foreign(t *testing.T) (all []Conflict) {
	t.Helper()
	check(t, l.Do(func() (err error) {
		all, err = Foreign(l.context(), nil)
		return err
	}))
	return all
}

func (l *lab) nft(t *testing.T, commands string) {
	t.Helper()
	l.Run(t, "nft", commands).OK(t)
}

func TestForeignDropIsNamed(t *testing.T) {
	l := newLab(t)
	l.nft(t, `table inet wall { chain outer { type filter hook forward priority 10; policy drop; iifname "other0" accept; }; }`)
	before := l.ruleset(t)
	c, a := l.container(t, "nsi0", 77, 2)
	check(t, l.masquerade(a))
	if c.Ping(l.out.V4, 56, never) == nil {
		t.Fatal("the wall lets packets through: the test is wrong")
	}
	const line = "table inet wall, chain outer (forward, policy drop) may drop what containers on nsi0 send: nft insert rule inet wall outer iifname nsi0 accept && nft insert rule inet wall outer oifname nsi0 accept"
	if !slices.Contains(l.warnings, line) {
		t.Errorf("told %q, want %q", l.warnings, line)
	}
	if !strings.Contains(zeroCounters(l.ruleset(t)), zeroCounters(before)) {
		t.Errorf("the table of another was changed:\n%s", l.ruleset(t))
	}
	// The remedy, as it was told, is one.
	_, commands, _ := strings.Cut(line, "send: ")
	l.Run(t, "sh", "-c", commands).OK(t)
	check(t, c.Ping(l.out.V4, 56, soon))
	check(t, c.Ping(l.out.V6, 56, soon))
	// And who did it isn't told again.
	told := len(l.warnings)
	check(t, l.undoHost())
	check(t, l.masquerade(a))
	if more := l.warnings[told:]; slices.Contains(more, line) {
		t.Errorf("told again: %q", more)
	}
}

func TestForeignRemedies(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct{ name, rules, want string }{
		{
			"docker", `table ip filter { chain DOCKER-USER { }; chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }`,
			"table ip filter, chain FORWARD (forward, policy drop) may drop what containers on d0 send: iptables -I DOCKER-USER -i d0 -j ACCEPT && iptables -I DOCKER-USER -o d0 -j ACCEPT",
		},
		{
			"ip6tables", `table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy accept; ct state established accept; counter drop; }; }`,
			"table ip6 filter, chain FORWARD (forward, ends in drop) may drop what containers on d0 send: ip6tables -I FORWARD -i d0 -j ACCEPT && ip6tables -I FORWARD -o d0 -j ACCEPT",
		},
		{
			"firewalld", `table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state established accept; reject with icmpx admin-prohibited; }; }`,
			"table inet firewalld, chain filter_FORWARD (forward, ends in reject) may drop what containers on d0 send: firewall-cmd --permanent --zone=trusted --add-interface=d0 && firewall-cmd --reload",
		},
		{
			"ufw", `table ip filter { chain ufw-user-input { }; chain INPUT { type filter hook input priority 0; policy drop; }; }`,
			"table ip filter, chain INPUT (input, policy drop) may drop what containers on d0 send: ufw allow in on d0",
		},
		{"harmless", `table ip filter { chain FORWARD { type filter hook forward priority 0; policy accept; iifname "eth9" drop; }; chain POST { type nat hook postrouting priority 100; policy accept; }; chain OUT { type filter hook output priority 0; policy drop; }; }`, ""},
	} {
		l.nft(t, "flush ruleset; "+tt.rules)
		got := ""
		for _, c := range l.foreign(t) {
			got += c.For("d0")
		}
		if got != tt.want {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
