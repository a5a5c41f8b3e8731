package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Root of a user namespace of the container's own is somebody harmless on the host.
func TestUserns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := m.detached(t, "a", "--rootfs", newRootfs(t), "--userns=private", "--uidmap", "0:100000:65536", "--network", "bridge", "sleep", "60")
	s := c.state(t)
	status, err := os.ReadFile(m.Path(fmt.Sprintf("/proc/%d/status", s.Pid)))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"Uid": "100000 100000 100000 100000", "Gid": "100000 100000 100000 100000", "CapEff": defaultCaps, "CapBnd": defaultCaps, "CapInh": noCaps, "NoNewPrivs": "1"} {
		if got := fields(string(status))[key]; got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	maps, err := os.ReadFile(m.Path(fmt.Sprintf("/proc/%d/uid_map", s.Pid)))
	if got := strings.Join(strings.Fields(string(maps)), " "); err != nil || got != "0 100000 65536" {
		t.Errorf("uid_map %q, %v", got, err)
	}
	v4, v6 := c.addrs(t)
	echo := c.node(t).Echo(t)
	if err := reaches(m.Node, v4, echo, 1500); err != nil {
		t.Error(err)
	}
	if err := reaches(m.Node, v6, echo, 1500); err != nil {
		t.Error(err)
	}
	if r := m.nsinit(t, "exec", "a", "true"); r.Code != 0 {
		if err := oneLine(r); err != nil || r.Code != 125 {
			t.Errorf("exec: exit code %d, %v: %q", r.Code, err, r.Stderr)
		}
	}
}

func TestUsernsSeesTheDefaultContainer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	flags := []string{"--userns", "--rootfs", newRootfs(t)}
	got := m.run(t, with(flags, script("id -u; stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/tty; ls /dev/pts; head -c 3 /dev/zero | wc -c; echo x >/dev/null; stat -c %u /marker /proc/1; : >/new && echo writable; cat /proc/self/cgroup | grep -c 0::/$"))...).OK(t).Line()
	want := "0\n/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/tty 5:0 666\nptmx\n3\n0\n0\nwritable\n1"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := m.run(t, with(flags, script("(echo 1 >/proc/sys/kernel/core_pattern) 2>&1 | grep -c Read-only; stat -c %t:%T /proc/interrupts"))...).Line(); got != "1\n1:3" {
		t.Errorf("restrictions: %q", got)
	}
}

// The host's files are readable, and root's in the container, without --rootfs.
func TestUsernsOverHostRoot(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	got := m.run(t, with([]string{"--userns", "--network", "bridge"}, script("stat -c %u /etc/passwd && echo x >>/etc/passwd && tail -1 /etc/passwd; ip -o link | wc -l"))...).OK(t).Line()
	if got != "0\nx\n2" {
		t.Errorf("got %q", got)
	}
}
