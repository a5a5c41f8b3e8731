package creds

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxID     = 4294967294 // 4294967295 is (uid_t)-1, "leave unchanged" for setresuid(2)
	maxGroups = 65536      // NGROUPS_MAX: setgroups(2) answers EINVAL above it
	maxName   = 256        // LOGIN_NAME_MAX
)

// A User is who the program runs as. The zero value is root without supplementary groups or home.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary; LookupUser puts the primary group first
	Name     string   // from passwd; "" if the number has no line
	Home     string   // from passwd; "/" else
}

// ParseUser checks the form of `--user NAME|UID[:GROUP|GID]` without looking anything up.
// "" is the default, 0:0; a command line should refuse it where it was given.
//
// What is all digits is a number, from 0 to 4294967294, and never a name: a passwd line that is
// named 1000 doesn't decide who `--user 1000` is (CVE-2016-3697), and a number that is too
// large is an error, not a name (CVE-2024-40635). Docker takes `UID:` for UID and `:GID` for
// 0:GID; both come of an empty variable in practice, the second then runs as root, so both are
// refused.
func ParseUser(s string) error {
	_, err := parseUser(s)
	return err
}

// An identity is one side of NAME|UID:GROUP|GID.
type identity struct {
	name string // "" if it was given as a number
	id   uint32 // if name is ""
}

// A userRequest is a parsed --user.
type userRequest struct {
	user, group identity
	hasGroup    bool
}

func parseUser(s string) (userRequest, error) {
	var r userRequest
	if s == "" {
		return r, nil
	}
	user, group, hasGroup := strings.Cut(s, ":")
	r.hasGroup = hasGroup
	var err error
	if r.user, err = parseIdentity(user); err != nil {
		return r, fmt.Errorf("user: %.64q: user %w; the form is NAME|UID[:GROUP|GID]", s, err)
	}
	if !hasGroup {
		return r, nil
	}
	if r.group, err = parseIdentity(group); err != nil {
		return r, fmt.Errorf("user: %.64q: group %w; the form is NAME|UID[:GROUP|GID]", s, err)
	}
	return r, nil
}

func parseIdentity(s string) (identity, error) {
	switch {
	case s == "":
		return identity{}, errorString("is empty")
	case allDigits(s):
		id, ok := parseID(s)
		if !ok {
			return identity{}, errorString("is outside 0..4294967294")
		}
		return identity{id: id}, nil
	case len(s) > maxName:
		return identity{}, errorString("is longer than 256 bytes")
	case s[0] == '-' || s[0] == '+':
		return identity{}, errorString("begins with a sign")
	case !utf8.ValidString(s):
		return identity{}, errorString("is not UTF-8")
	}
	for _, c := range s {
		if c == ':' || c == ',' || c == '/' || unicode.IsSpace(c) || !unicode.IsPrint(c) {
			return identity{}, errorString("has the character " + strconv.QuoteRune(c))
		}
	}
	return identity{name: s}, nil
}

// errorString is an error that a caller wraps.
type errorString string

func (e errorString) Error() string { return string(e) }

func allDigits[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) > 0
}

// parseID takes decimal digits only, leading zeros included: no sign, no base prefix.
func parseID[T string | []byte](s T) (uint32, bool) {
	if !allDigits(s) {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		n = n*10 + uint64(s[i]-'0')
		if n > maxID {
			return 0, false
		}
	}
	return uint32(n), true
}

// LookupUser finds s, in the form of [ParseUser], in /etc/passwd and /etc/group below root, an
// O_PATH descriptor of the container's root. "" is user 0, as for docker. root stays the caller's.
//
// The first line that fits wins; malformed lines are skipped. A number without a line is fine: its
// group is then 0, as for docker, and it is fine too if the files can't be used at all. A name
// without a line is an error. Without a group in s, the groups whose member lists hold the user's
// name are supplementary; with one, it is the only group: both as docker and podman do. The
// primary group is always in Groups, else files that deny a group would open up (CVE-2022-36109).
//
// The files are the container's, so they are distrusted: resolved inside root, without magic links,
// regular files of a real file system only, at most 32 MiB with lines of at most 1 MiB. os/user
// reads the host's files, and the parser of moby/sys/user takes fields that are not numbers for 0.
func LookupUser(root *os.File, s string) (User, error) {
	r, err := parseUser(s)
	if err != nil {
		return User{}, err
	}
	u, err := findUser(root, r.user)
	if err == nil {
		err = findGroups(root, r, &u)
	}
	if err != nil {
		return User{}, fmt.Errorf("user: %.64q: %w", s, err)
	}
	return u, nil
}

// findUser fills all but Groups.
func findUser(root *os.File, want identity) (User, error) {
	u := User{UID: want.id, Home: "/"}
	found := false
	err := eachLine(root, passwdPath, func(line []byte) bool {
		e, ok := parsePasswd(line)
		if !ok || want.name == "" && e.uid != want.id || want.name != "" && string(e.name) != want.name {
			return true
		}
		u.UID, u.GID, u.Name, found = e.uid, e.gid, string(e.name), true
		if len(e.home) > 0 && e.home[0] == '/' {
			u.Home = string(e.home)
		}
		return false
	})
	switch {
	case want.name == "" && isUnusable(err):
		return u, nil
	case err != nil:
		return u, err
	case want.name != "" && !found:
		return u, fmt.Errorf("no such user in the container's %s; give a number, or add it there", passwdPath)
	}
	return u, nil
}

// findGroups fills GID, where a group was asked for, and Groups.
func findGroups(root *os.File, r userRequest, u *User) error {
	switch {
	case r.hasGroup && r.group.name == "":
		u.GID = r.group.id
	case r.hasGroup:
		gid, err := findGroup(root, r.group.name)
		if err != nil {
			return err
		}
		u.GID = gid
	}
	u.Groups = []uint32{u.GID}
	if r.hasGroup || u.Name == "" {
		return nil
	}
	err := findMemberships(root, u)
	if isMissing(err) || r.user.name == "" && isUnusable(err) {
		return nil
	}
	return err
}

func findGroup(root *os.File, name string) (gid uint32, err error) {
	found := false
	err = eachLine(root, groupPath, func(line []byte) bool {
		g, ok := parseGroup(line)
		if ok && string(g.name) == name {
			gid, found = g.gid, true
		}
		return !found
	})
	if err == nil && !found {
		err = fmt.Errorf("no such group in the container's %s; give a number, or add it there", groupPath)
	}
	return gid, err
}

// findMemberships adds the groups that name u as a member, each once.
func findMemberships(root *os.File, u *User) error {
	seen := map[uint32]bool{u.GID: true}
	err := eachLine(root, groupPath, func(line []byte) bool {
		g, ok := parseGroup(line)
		if !ok || !g.hasMember(u.Name) || seen[g.gid] {
			return true
		}
		seen[g.gid] = true
		u.Groups = append(u.Groups, g.gid)
		return len(u.Groups) <= maxGroups
	})
	if err == nil && len(u.Groups) > maxGroups {
		err = fmt.Errorf("member of more than %d groups in the container's %s; the kernel takes no more", maxGroups, groupPath)
	}
	return err
}
