package creds

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rootWith makes a container's root with the two files ("" = no such file) and opens it as the init does.
func rootWith(t testing.TB, passwd, group string) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{passwdPath: passwd, groupPath: group} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return openRoot(t, dir)
}

func openRoot(t testing.TB, dir string) *os.File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	root := os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { root.Close() })
	return root
}

const (
	plainPasswd = "root:x:0:0:root:/root:/bin/sh\n" +
		"daemon:x:1:1::/usr/sbin:/bin/false\n" +
		"alice:x:1000:1000:Alice:/home/alice:/bin/sh\n" +
		"bob:x:1001:100::/home/bob:/bin/sh\n"
	plainGroup = "root:x:0:\n" +
		"daemon:x:1:\n" +
		"users:x:100:alice\n" +
		"wheel:x:10:root,alice,bob\n" +
		"alice:x:1000:\n"
)

func TestLookupUser(t *testing.T) {
	t.Parallel()
	root := rootWith(t, plainPasswd, plainGroup)
	for s, want := range map[string]User{
		"":               {0, 0, []uint32{0, 10}, "root", "/root"},
		"0":              {0, 0, []uint32{0, 10}, "root", "/root"},
		"root":           {0, 0, []uint32{0, 10}, "root", "/root"},
		"1":              {1, 1, []uint32{1}, "daemon", "/usr/sbin"},
		"001":            {1, 1, []uint32{1}, "daemon", "/usr/sbin"},
		"1:0":            {1, 0, []uint32{0}, "daemon", "/usr/sbin"},
		"0:1":            {0, 1, []uint32{1}, "root", "/root"},
		"alice":          {1000, 1000, []uint32{1000, 100, 10}, "alice", "/home/alice"},
		"1000":           {1000, 1000, []uint32{1000, 100, 10}, "alice", "/home/alice"},
		"alice:wheel":    {1000, 10, []uint32{10}, "alice", "/home/alice"},
		"1:wheel":        {1, 10, []uint32{10}, "daemon", "/usr/sbin"},
		"1000:2000":      {1000, 2000, []uint32{2000}, "alice", "/home/alice"},
		"bob":            {1001, 100, []uint32{100, 10}, "bob", "/home/bob"},
		"4242":           {4242, 0, []uint32{0}, "", "/"},
		"4242:users":     {4242, 100, []uint32{100}, "", "/"},
		"4294967294":     {4294967294, 0, []uint32{0}, "", "/"},
		"1:4294967294":   {1, 4294967294, []uint32{4294967294}, "daemon", "/usr/sbin"},
		"00000000000001": {1, 1, []uint32{1}, "daemon", "/usr/sbin"},
	} {
		got, err := LookupUser(root, s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestUserRefused(t *testing.T) {
	t.Parallel()
	root := rootWith(t, plainPasswd+"4294967296:x:0:0:::\n2147483648000:x:0:0:::\n-1:x:0:0:::\n+1:x:0:0:::\n", plainGroup)
	for s, want := range map[string]string{
		":":                               "user is empty",
		":1":                              "user is empty",
		"1:":                              "group is empty",
		"a:b:c":                           "group has the character ':'",
		"1:2:3":                           "group has the character ':'",
		"4294967295":                      "outside 0..4294967294",
		"4294967296":                      "outside 0..4294967294",
		"2147483648000":                   "outside 0..4294967294",
		"99999999999999999999999":         "outside 0..4294967294",
		"1:4294967296":                    "outside 0..4294967294",
		"-1":                              "begins with a sign",
		"+1":                              "begins with a sign",
		" 1":                              "has the character ' '",
		"1 ":                              "has the character ' '",
		"0x0":                             "no such user",
		"1e3":                             "no such user",
		"1.5":                             "no such user",
		"\uff10":                          "no such user", // a digit, but not one of ours
		"alice\x00":                       `has the character '\x00'`,
		"alice\n":                         `has the character '\n'`,
		"ali\x1b[0mce":                    `has the character '\x1b'`,
		"../alice":                        `has the character '/'`,
		"a,b":                             `has the character ','`,
		"\xff":                            "is not UTF-8",
		strings.Repeat("a", maxName+1):    "longer than 256 bytes",
		"mallory":                         "no such user",
		"alice:nogroup":                   "no such group",
		"mallory:wheel":                   "no such user",
		"1:" + strings.Repeat("a", 10000): "longer than 256 bytes",
	} {
		u, err := LookupUser(root, s)
		if err == nil {
			t.Errorf("%q: taken as %+v", s, u)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.ContainsAny(text, "\n\x1b\x00") || len(text) > 300 {
			t.Errorf("%q: %q lacks %q, or is no short line", s, text, want)
		}
		if lookup := strings.HasPrefix(want, "no such"); (ParseUser(s) == nil) != lookup {
			t.Errorf("%q: ParseUser says %v", s, ParseUser(s))
		}
	}
}

// Whatever the files say, nobody becomes somebody else by a line that is malformed.
func TestMalformedLines(t *testing.T) {
	t.Parallel()
	root := rootWith(t, strings.Join([]string{
		"1000:x:0:0:a number as a name:/root:/bin/sh",
		"eve:x:4294967295:0::/:", "eve:x:4294967296:0::/:", "eve:x:-1:0::/:", "eve:x::0::/:", "eve:x:0x0:0::/:", "eve:x: 0:0::/:",
		"eve:x:zero:0::/:", "eve:x:0", "eve:x", "eve", "eve:x:0:", "eve:x:0:nogroup::/:",
		"+::0:0:::", "+eve:x:0:0:::", "-eve:x:0:0:::", "#eve:x:0:0:::", ":x:0:0:::", "",
		"eve:x:0:0:\x00:/:", "eve:x:0:0::/\x1b[31m:", "eve\x00:x:0:0:::",
		"eve:x:1005:1006::/home/eve:/bin/sh\r", // CR LF, and the first good line
		"eve:x:0:0::/root:/bin/sh",
		"short:x:1007:1008",
		"far:x:1009:1009::relative/home:",
	}, "\n"), strings.Join([]string{
		"1006:x:0:eve", // also a number as a name, but a member all the same
		"g:x:4294967296:eve", "g:x:-1:eve", "g:x::eve", "g:x:five:eve", "g", "+:::", "g:x:7\x00:eve",
		"g:x:7:adam,eve\r", "g:x:0:", "h:x:8: eve", "i:x:9:eve2,xeve", "j:x:11:eve:", "k:x:7:eve", "l:x:1006:eve",
	}, "\n"))
	for s, want := range map[string]User{
		"eve":    {1005, 1006, []uint32{1006, 0, 7}, "eve", "/home/eve"},
		"1000":   {1000, 0, []uint32{0}, "", "/"},
		"short":  {1007, 1008, []uint32{1008}, "short", "/"},
		"far":    {1009, 1009, []uint32{1009}, "far", "/"},
		"5:g":    {5, 7, []uint32{7}, "", "/"},
		"5:1006": {5, 1006, []uint32{1006}, "", "/"},
	} {
		got, err := LookupUser(root, s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestNoUserFiles(t *testing.T) {
	t.Parallel()
	empty := openRoot(t, t.TempDir())
	for s, want := range map[string]User{
		"":       {0, 0, []uint32{0}, "", "/"},
		"7":      {7, 0, []uint32{0}, "", "/"},
		"7:8":    {7, 8, []uint32{8}, "", "/"},
		"0:1000": {0, 1000, []uint32{1000}, "", "/"},
	} {
		got, err := LookupUser(empty, s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"alice", "7:users"} {
		if u, err := LookupUser(empty, s); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%q: got %+v, %v", s, u, err)
		}
	}
	// A user's name is enough where only the group file is missing.
	if u, err := LookupUser(rootWith(t, plainPasswd, ""), "alice"); err != nil || len(u.Groups) != 1 {
		t.Errorf("alice: got %+v, %v", u, err)
	}
	if _, err := LookupUser(nil, "7"); err != nil {
		t.Errorf("7 without a root: %v", err)
	}
	if _, err := LookupUser(nil, "alice"); err == nil {
		t.Error("alice without a root is found")
	}
}

func TestGroupLimit(t *testing.T) {
	t.Parallel()
	var group strings.Builder
	for gid := range maxGroups + 1 {
		fmt.Fprintf(&group, "g%d:x:%d:alice\ng%d:x:%d:alice\n", gid, gid, gid, gid)
		if gid == maxGroups-1 {
			group.WriteString("stop:x:5:bob\n")
		}
	}
	if u, err := LookupUser(rootWith(t, plainPasswd, group.String()), "alice"); err == nil || !strings.Contains(err.Error(), "more than 65536 groups") {
		t.Errorf("got %d groups, %v", len(u.Groups), err)
	}
	most, _, _ := strings.Cut(group.String(), "stop:")
	u, err := LookupUser(rootWith(t, plainPasswd, most), "alice")
	if err != nil || len(u.Groups) != maxGroups {
		t.Errorf("got %d groups, %v", len(u.Groups), err)
	}
}

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"", "0", "1:", ":1", "1:0", "name:grp", "4294967295", "-1", "+1", "0x0", "a:b:c", "\x00", "\xff", " 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseUser(s)
		if err != nil {
			if text := err.Error(); strings.ContainsAny(text, "\n\r\x00\x1b") || len(text) > 1000 {
				t.Errorf("%q: %q is no short line", s, text)
			}
			return
		}
		user, group, hasGroup := strings.Cut(s, ":")
		if hasGroup != r.hasGroup || allDigits(user) == (r.user.name != "") && s != "" || hasGroup && allDigits(group) == (r.group.name != "") {
			t.Errorf("%q: taken as %+v", s, r)
		}
		if r.user.id > maxID || r.group.id > maxID {
			t.Errorf("%q: out of range: %+v", s, r)
		}
	})
}

func FuzzLookupPasswd(f *testing.F) {
	f.Add(plainPasswd, plainGroup, "alice")
	f.Add("eve:x:0x0:0:::\neve:x:-1:0\n", "g:x:0:eve\n", "eve:g")
	f.Add("1000:x:0:0:::\n", "", "1000")
	f.Add("a:x:1:2:\x00\r\n", "a:x:1:,,a\r\n", "a")
	root := rootWith(f, "", "")
	f.Fuzz(func(t *testing.T, passwd, group, s string) {
		for path, text := range map[string]string{passwdPath: passwd, groupPath: group} {
			if err := os.WriteFile(filepath.Join(root.Name(), path), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		u, err := LookupUser(root, s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		if len(u.Groups) == 0 || u.Groups[0] != u.GID || u.UID > maxID || u.Home == "" || u.Home[0] != '/' || strings.ContainsAny(u.Home+u.Name, "\n\x00:") {
			t.Errorf("%q: got %+v", s, u)
		}
		// Root is only who asked for it, or whose line says so in plain digits.
		name, _, _ := strings.Cut(s, ":")
		if u.UID == 0 && s != "" && strings.Trim(name, "0") != "" && !strings.Contains(passwd, name+":") {
			t.Errorf("%q became root", s)
		}
	})
}
