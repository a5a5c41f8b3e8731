package fs

import (
	"reflect"
	"strings"
	"testing"
)

func TestCheckRelease(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-49-amd64": "", "6.18.44": "", "7.0-rc1": "", "10.0": "", "6.1": "", "6.1-rc2": "",
		"6.0.19": "too old: Linux 6.1 or newer", "5.15.0": "too old", "2.6.32": "too old",
		"": "is not understood", "six": "is not understood", "6": "is not understood", "6.x": "is not understood",
	} {
		err := checkRelease(release)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", release, err, want)
		}
	}
	if err := CheckKernel(); err != nil {
		t.Error(err)
	}
}

func TestParseMount(t *testing.T) {
	got, err := parseMounts([]byte(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
28 25 0:25 / /a\040b\011c\012d\134e rw - tmpfs none rw
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []mountEntry{
		{id: 36, parent: 35, major: 98, root: "/mnt1", point: "/mnt2", fstype: "ext3"},
		{id: 28, parent: 25, root: "/", point: "/a b\tc\nd\\e", fstype: "tmpfs"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, line := range []string{"", "36", "36 35 98:0 / / rw", "x 35 98:0 / / rw - ext4 a b", "1 -2 98:0 / / rw - ext4 a b"} {
		if _, ok := parseMount([]byte(line)); ok {
			t.Errorf("%q is understood", line)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Add([]byte(`28 25 0:25 / /a\040\1\ rw - tmpfs none rw`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		mounts, _ := parseMounts(data)
		below(mounts, 1)
	})
}

func TestBelow(t *testing.T) {
	mounts := []mountEntry{{id: 1, parent: 1}, {id: 2, parent: 1}, {id: 3, parent: 2}, {id: 4, parent: 3}, {id: 5, parent: 1}}
	var got []int
	for _, m := range below(mounts, 2) {
		got = append(got, m.id)
	}
	if !reflect.DeepEqual(got, []int{3, 4}) {
		t.Error(got)
	}
}

func TestSelectLayers(t *testing.T) {
	o := overlay{}
	o.selectLayers([]mountEntry{
		{point: "/", fstype: "ext4", major: 8},
		{point: "/home/me", fstype: "btrfs"},
		{point: "/home", fstype: "ext4", major: 8},
		{point: "/proc", fstype: "proc"},
		{point: "/mnt/nfs", fstype: "nfs4"},
		{point: "/mnt/fuse", fstype: "fuse.sshfs"},
		{point: "/tmp", fstype: "ext4", major: 8},
		{point: "/run/media/usb", fstype: "ext4", major: 8},
		{point: "/root/disk", fstype: "ext4", major: 8},
		{point: "/var/lib/docker/overlay2/x/merged", fstype: "overlay"},
		{point: "/usr", fstype: "overlay"},
		{point: "/snap/core/1", fstype: "squashfs", major: 7},
		{point: "/dev/shm", fstype: "tmpfs"},
	}, []string{"/root"})
	var got []string
	for _, l := range o.layers {
		got = append(got, l.point)
	}
	if want := "/ /home /home/me /snap/core/1 /usr"; strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestHide(t *testing.T) {
	o := overlay{layers: []layer{{mountEntry: mountEntry{point: "/"}}, {mountEntry: mountEntry{point: "/var"}}}}
	for _, name := range []string{"/root", "/var/lib/nsinit", "/var", "/variant/x"} {
		o.hide(name, 0)
	}
	want := [][]gap{{{"root", 0}, {"var", 0}, {"variant/x", 0}}, {{"lib/nsinit", 0}}}
	for i, l := range o.layers {
		if !reflect.DeepEqual(l.blank, want[i]) {
			t.Errorf("%s: %v, want %v", l.point, l.blank, want[i])
		}
	}
}

func TestCheckSysctl(t *testing.T) {
	for _, test := range []struct{ key, value, want string }{
		{"net.ipv4.ip_forward", "1", ""},
		{"net/ipv4/ip_forward", "1", ""},
		{"net.ipv4.conf.eth0/100.forwarding", "1", ""},
		{"net/ipv4/conf/eth0.100/forwarding", "1", ""},
		{"net.ipv4.ping_group_range", "0\t2147483647", ""},
		{"kernel.shmmax", "1", ""},
		{"fs.mqueue.msg_max", "1", ""},
		{"kernel.hostname", "a", ""},
		{"kernel.core_pattern", "|/x", "belongs to the whole host"},
		{"kernel.shmmax.x", "1", "belongs to the whole host"},
		{"vm.swappiness", "1", "belongs to the whole host"},
		{"net/../kernel/core_pattern", "1", "is not the name of one"},
		{"net.//.kernel", "1", "is not the name of one"},
		{"net...ipv4", "1", "is not the name of one"},
		{"", "1", "is not the name of one"},
		{"net.", "1", "is not the name of one"},
		{"/net/x", "1", "is not the name of one"},
		{"net.ipv4.x y", "1", "is not the name of one"},
		{"net.ipv4.x\x00", "1", "is not the name of one"},
		{"kernel.shmmax", "1\nkernel.core_pattern=x", "has a control character"},
		{"kernel.shmmax", "1\x00", "has a control character"},
	} {
		err := CheckSysctl(test.key, test.value)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.key, err, test.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]*Config{
		"is not an absolute path":     {Root: "relative"},
		"is a regular file, not":      {Root: "/etc/passwd"},
		"the host's own root":         {Root: "/usr/.."},
		"file: /etc//hosts: is given": {Files: []File{{Path: "/etc/hosts"}, {Path: "/etc//hosts"}}},
		`file: "hosts": is not an`:    {Files: []File{{Path: "hosts"}}},
		"masked path: is empty":       {MaskedPaths: []string{""}},
		"read-only path: \"proc\"":    {ReadonlyPaths: []string{"proc"}},
		"hidden path: \"/a\\x00\"":    {Hidden: []string{"/a\x00"}},
		"masked path: \"/[\": is not": {MaskedPaths: []string{"/["}},
		"shm size: -1: is negative":   {ShmSize: -1},
		"mount label":                 {MountLabel: "a\x00b"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c := &Config{MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths(), Hidden: []string{"/etc/ssh/*_key"}}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
