package wire

import (
	"time"

	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/lsm"
	"github.com/nsinit/nsinit/netsetup"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Start is the body of Go: everything that the init needs, for it reads nothing else. The
// structs are the rooms' own.
type Start struct {
	Args     []string
	Env      []string // HOME and TERM are added by the init where they are missing
	Cwd      string   // made if it is missing
	User     string   // NAME|UID[:GROUP|GID], looked up inside
	Terminal bool
	Size     Winsize // of the terminal; zero = the kernel's
	Hostname string
	Sysctls  []Sysctl

	Loopback bool // the network namespace is new: bring lo up
	Networks []netsetup.Attachment

	Root         fs.Config
	PreparedRoot bool // the frame brings the root as a detached mount
	Userns       bool

	LSM          lsm.Config
	Rlimits      []specs.POSIXRlimit
	Capabilities *specs.LinuxCapabilities
	NoNewPrivs   bool
	Umask        uint32

	Init   bool // stay as PID 1
	Detach bool // outlive the host side
	Trace  bool
}

// Winsize is a terminal's size in characters.
type Winsize struct{ Rows, Cols uint16 }

// A Sysctl is one setting of the container's own namespaces.
type Sysctl struct{ Key, Value string }

// Failure is the body of Failed: which step failed at what.
type Failure struct {
	Step  string
	Text  string
	Errno int // 0 if no system call was refused
	Code  int // nsinit's exit code: 125, 126 or 127
}

// Traced is the body of Trace: a finished step.
type Traced struct {
	Step string
	Took time.Duration
}
