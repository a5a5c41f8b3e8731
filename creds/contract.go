// Package creds sets who a process is and what it may do: user and groups, capabilities,
// no_new_privs, resource limits, inherited descriptors. Everything acts on the calling thread, which
// the caller has locked.
package creds

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errTodo = errors.New("not built yet")

// A User is who the program runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary, the primary group among them
	Name     string   // from passwd; "" if the number has no line
	Home     string   // from passwd; "/" else
}

// ParseUser checks the form of `--user NAME|UID[:GROUP|GID]` without looking anything up.
func ParseUser(s string) error { return errTodo }

// LookupUser finds s in the passwd and group files below root, an O_PATH descriptor of the
// container's root; "" is 0:0.
func LookupUser(root *os.File, s string) (User, error) { return User{}, errTodo }

// DefaultCapabilities are podman's eleven and NET_RAW.
func DefaultCapabilities() []string { return nil }

// Capabilities turns the flags into the five sets.
func Capabilities(add, drop []string, privileged bool) (*specs.LinuxCapabilities, error) {
	return nil, errTodo
}

// ParseUlimit parses `--ulimit NAME=SOFT[:HARD]`.
func ParseUlimit(s string) (specs.POSIXRlimit, error) { return specs.POSIXRlimit{}, errTodo }

// SetRlimits sets the limits of the process.
func SetRlimits(limits []specs.POSIXRlimit) error { return errTodo }

// DropBounding lowers the bounding set to bounding and reads it back.
func DropBounding(bounding []string) error { return errTodo }

// CloseOnExec marks every descriptor from 3 on but those of keep close-on-exec.
func CloseOnExec(keep ...*os.File) error { return errTodo }

// SetUser sets supplementary groups, gid and uid of the calling thread, keeping permitted capabilities, and
// reads them back.
func SetUser(u User) error { return errTodo }

// SetCapabilities sets effective, permitted, inheritable and ambient sets and reads each back.
func SetCapabilities(c *specs.LinuxCapabilities) error { return errTodo }

// SetNoNewPrivs sets no_new_privs and reads it back.
func SetNoNewPrivs() error { return errTodo }
