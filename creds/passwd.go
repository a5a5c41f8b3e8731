package creds

import (
	"bytes"
)

// Paths in the container's root.
const (
	passwdPath = "/etc/passwd"
	groupPath  = "/etc/group"
)

// A passwdEntry is a line of passwd(5); its slices die with the line.
type passwdEntry struct {
	name, home []byte // home "" if the line ends before it
	uid, gid   uint32
}

// parsePasswd takes name:password:uid:gid[:gecos[:home[:shell]]]. A line whose numbers aren't
// numbers is no line: whoever reads them as 0 makes somebody root.
func parsePasswd(line []byte) (e passwdEntry, ok bool) {
	if !plain(line) {
		return e, false
	}
	var f [6][]byte
	rest, n, more := line, 0, true
	for ; more && n < len(f); n++ {
		f[n], rest, more = bytes.Cut(rest, []byte{':'})
	}
	var uidOK, gidOK bool
	e.name, e.home = f[0], f[5]
	e.uid, uidOK = parseID(f[2])
	e.gid, gidOK = parseID(f[3])
	return e, uidOK && gidOK && len(e.name) > 0
}

// A groupEntry is a line of group(5); its slices die with the line.
type groupEntry struct {
	name, members []byte
	gid           uint32
}

// parseGroup takes name:password:gid[:members].
func parseGroup(line []byte) (g groupEntry, ok bool) {
	if !plain(line) {
		return g, false
	}
	var gid []byte
	g.name, line, _ = bytes.Cut(line, []byte{':'})
	_, line, _ = bytes.Cut(line, []byte{':'})
	gid, g.members, _ = bytes.Cut(line, []byte{':'})
	g.gid, ok = parseID(gid)
	return g, ok && len(g.name) > 0
}

// hasMember reports whether name is in the comma-separated list. Nothing is trimmed: neither do
// the C libraries.
func (g groupEntry) hasMember(name string) bool {
	for list, more := g.members, true; more; {
		var m []byte
		m, list, more = bytes.Cut(list, []byte{','})
		if string(m) == name {
			return true
		}
	}
	return false
}

// plain refuses comments, the + and - lines of NIS, and control characters, which would travel
// into HOME (CVE-2022-4318 is of that kind).
func plain(line []byte) bool {
	if len(line) == 0 || line[0] == '#' || line[0] == '+' || line[0] == '-' {
		return false
	}
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}
