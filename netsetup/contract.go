package netsetup

import (
	"context"
	"errors"
	"net/netip"
	"os"
)

var errTodo = errors.New("not built yet")

// ---- flag.go

// ParseFlag turns the value of --network into a request, with podman's words. A
// name that is no word of ours is looked up as a network in dirs. "none" and
// "host" are the caller's: Strategy says so and Network is nil.
func ParseFlag(value string, dirs []string) (Request, error) { return Request{}, errTodo }

// PlanAll validates all requests together, numbers the interfaces, and returns
// every fault.
func PlanAll(reqs []Request) ([]Plan, error) { return nil, errTodo }

// ---- netns.go: the only file that changes a thread's namespace

// A NetNS is an open network namespace. It owns its descriptor until Close.
type NetNS struct{ f *os.File }

// OpenNetNS opens a network namespace by path and refuses anything else that
// lies there.
func OpenNetNS(path string) (*NetNS, error) { return nil, errTodo }

// ProcessNetNS opens the network namespace of the process pid, which the
// caller holds by pidfd and so can't have been reused.
func ProcessNetNS(pidfd *os.File, pid int) (*NetNS, error) { return nil, errTodo }

// File returns the descriptor, still owned by n.
func (n *NetNS) File() *os.File { return n.f }

// Close closes the descriptor.
func (n *NetNS) Close() error { return n.f.Close() }

// Do runs f on a new locked thread inside n and waits for it. The thread dies afterwards.
func (n *NetNS) Do(f func() error) error { return errTodo }

// DoHere runs f on the calling thread, which the caller has locked, inside n, and
// brings the thread back; it ends the process if the kernel refuses the way
// back. It is for starting a child with a parent-death signal, which belongs
// to the thread.
func (n *NetNS) DoHere(f func() error) error { return errTodo }

// BindName makes n available to `ip netns` under /run/netns/name. The object is
// recorded first.
func (n *NetNS) BindName(name, owner string, record Recorder) error { return errTodo }

// ---- host.go

// A Host is the host's side of the network: one netlink socket in its namespace,
// with extended acknowledgements, and what was learnt of it.
type Host struct {
	Warn func(line string) // one line for the user; never nil
}

// OpenHost opens the calling process's network namespace as the host.
func OpenHost(warn func(string)) (*Host, error) { return nil, errTodo }

// Close closes the socket.
func (h *Host) Close() error { return nil }

// Undo removes one object of the kinds that this package records: "link",
// "netns-name", "bridge". An object that is gone is no error.
func Undo(ctx context.Context, h *Host, o Object) error { return errTodo }

// ---- inside.go

// Inside is the container's side: one netlink socket in the namespace of the
// calling thread.
type Inside struct{}

// OpenInside opens it. The caller's thread is in the container's namespace.
func OpenInside() (*Inside, error) { return nil, errTodo }

// Close closes the socket.
func (in *Inside) Close() error { return nil }

// ConfigureLoopback brings lo up with its addresses; mtu 0 leaves the kernel's.
func ConfigureLoopback(in *Inside, mtu int) error { return errTodo }

// ---- dns.go

// ResolvConf returns the content of the container's /etc/resolv.conf: flags first,
// then what the networks say, then the host's resolvers that can be reached from
// inside. hostFile is the host's /etc/resolv.conf. loopback lists the host's
// resolvers that only the host's loopback serves.
func ResolvConf(hostFile string, flags DNS, atts []Attachment) (content []byte, loopback []netip.AddrPort, err error) {
	return nil, nil, errTodo
}
