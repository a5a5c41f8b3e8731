package container

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/nsinit/nsinit/netsetup"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errTodo = errors.New("not built yet")

// A Spec is what is asked for: the OCI runtime specification's own types, and
// what it lacks. The command line fills it, Validate checks it whole.
type Spec struct {
	ID  string     // [A-Za-z0-9_+-.], at most 255 bytes; "" = Run makes one
	OCI specs.Spec // Process, Root, Mounts, Hostname, Linux.{Sysctl,MaskedPaths,ReadonlyPaths,UIDMappings,GIDMappings,MountLabel}

	User         string             // NAME|UID[:GROUP|GID], looked up inside
	Overlay      bool               // no rootfs: the host's root under a throwaway overlay; OCI.Root.Path is ""
	Networks     []netsetup.Request // in order; empty = loopback only
	HostNet      bool               // --network host
	NoNet        bool               // --network none, said explicitly
	NetnsName    string             // bind the namespace under /run/netns
	DNS          netsetup.DNS       // --dns, --dns-search, --dns-option
	AddHosts     []HostEntry        // --add-host
	Privileged   bool
	Init         bool   // nsinit stays as PID 1
	Detach       bool   // leave it running
	Interactive  bool   // the program reads our stdin
	PidFile      string // "" = none
	CgroupParent string // below the unified hierarchy; "" = /nsinit
	NoForwarding bool   // refuse to change the host's forwarding
	NoPivot      bool   // MS_MOVE and chroot
	ShmSize      int64  // bytes; 0 = 64 MiB
}

// A HostEntry is one line of /etc/hosts.
type HostEntry struct{ Name, IP string }

// Default returns the default container of one program: podman's defaults, no network but loopback.
func Default(args []string) *Spec { return nil }

// Validate returns every fault of s, before anything has been touched.
func (s *Spec) Validate() error { return errTodo }

// A Runtime is where containers are recorded, and how it talks.
type Runtime struct {
	Root    string    // state directory; "" = /run/nsinit
	DataDir string    // what outlives a boot: networks; "" = /var/lib/nsinit
	Trace   io.Writer // each step with its time; nil = silent
	Stderr  io.Writer // one-line warnings; nil = os.Stderr
}

// Run starts a container and, unless s.Detach, waits for its end. It returns the program's
// exit code, 128+signal if one killed it. An error is nsinit's own failure (ExitCode tells 125, 126 or 127).
// With s.Detach the code is 0 and the id is in s.ID.
func (r *Runtime) Run(ctx context.Context, s *Spec) (int, error) { return 125, errTodo }

// An ExecSpec is a further program in a running container.
type ExecSpec struct {
	Process     specs.Process // Args, Env (added to the container's), Cwd ("" = the container's), Terminal, Capabilities (nil = the container's)
	User        string        // "" = the container's
	Interactive bool
	Detach      bool
	Privileged  bool
	CapAdd      []string
	CapDrop     []string
	PidFile     string
}

// Exec runs a further program in container id, in all its namespaces, its cgroup and its restrictions.
func (r *Runtime) Exec(ctx context.Context, id string, e *ExecSpec) (int, error) { return 125, errTodo }

// State is what is known of a container. Its JSON is the OCI runtime specification's state, and more.
type State struct {
	OCIVersion  string                `json:"ociVersion"`
	ID          string                `json:"id"`
	Status      string                `json:"status"` // creating, running, stopped
	Pid         int                   `json:"pid,omitempty"`
	Bundle      string                `json:"bundle"`
	Annotations map[string]string     `json:"annotations,omitempty"`
	Created     time.Time             `json:"created"`
	Args        []string              `json:"args"`
	Rootfs      string                `json:"rootfs"`
	Detached    bool                  `json:"detached"`
	NetnsName   string                `json:"netnsName,omitempty"`
	Cgroup      string                `json:"cgroup,omitempty"`
	Networks    []netsetup.Attachment `json:"networks"`
}

// List returns all containers, by name.
func (r *Runtime) List() ([]State, error) { return nil, errTodo }

// State returns container id; os.ErrNotExist if there is none.
func (r *Runtime) State(id string) (*State, error) { return nil, errTodo }

// Kill sends sig to the container's program; all to each of its processes.
func (r *Runtime) Kill(id string, sig os.Signal, all bool) error { return errTodo }

// Delete removes a stopped container and what it holds; force kills it first. A container that is
// gone already is an error unless force.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error { return errTodo }

// Removed is one thing that GC removed.
type Removed struct {
	Container string `json:"container,omitempty"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Error     string `json:"error,omitempty"` // it could not be removed
}

// GC removes what killed runs left. all removes also what outlives containers: the default network's bridge,
// subnets, the firewall table, forwarding that was switched on; never anything of a running container.
func (r *Runtime) GC(ctx context.Context, all bool) ([]Removed, error) { return nil, errTodo }

// ExitCode is the process exit code for err: 125, or 126 and 127 where the program couldn't be executed or found.
func ExitCode(err error) int { return 125 }
