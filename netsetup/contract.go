package netsetup

import (
	"errors"
	"net/netip"
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

// ---- dns.go

// ResolvConf returns the content of the container's /etc/resolv.conf: flags first,
// then what the networks say, then the host's resolvers that can be reached from
// inside. hostFile is the host's /etc/resolv.conf. loopback lists the host's
// resolvers that only the host's loopback serves.
func ResolvConf(hostFile string, flags DNS, atts []Attachment) (content []byte, loopback []netip.AddrPort, err error) {
	return nil, nil, errTodo
}
