package netsetup

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What a resolver takes: glibc reads three servers (MAXNS), and, as musl and
// glibc before 2.26, six search domains in 256 bytes.
const (
	maxServers     = 3
	maxSearch      = 6
	maxSearchBytes = 256
)

// Resolvers is what a container's /etc/resolv.conf says, before it is known where
// its host's loopback is served.
type Resolvers struct {
	Servers  []Resolver // in order of use; may be more than resolv.conf takes
	Search   []string
	Options  []string
	internal bool // no way out of the container: none of the host's resolvers
}

// A Resolver is one server.
type Resolver struct {
	Addr     netip.Addr
	Loopback bool // the host's: only its loopback serves it
}

// NewResolvers collects the container's resolvers: from flags, else from what the
// networks say, else from the host's file; and so the search domains and the
// options. Of the host's servers those are left out that can't be reached from
// inside: link-local ones, and ones of a family that the container doesn't have;
// and all of them if no network has a way out. A host file that isn't there, or
// a dangling link, has nothing to say.
func NewResolvers(hostFile string, flags DNS, atts []Attachment) (*Resolvers, error) {
	return newResolvers(hostFile, systemdResolvers, flags, atts)
}

func newResolvers(hostFile, behindStub string, flags DNS, atts []Attachment) (*Resolvers, error) {
	if err := flags.check("--dns"); err != nil {
		return nil, err
	}
	r := &Resolvers{internal: internalOnly(atts)}
	r.take(flags)
	var networks DNS
	for _, a := range atts {
		if err := a.DNS.check("network " + a.Network + ": dns"); err != nil {
			return nil, err
		}
		networks.add(a.DNS)
	}
	r.take(networks)
	if r.Servers != nil && r.Search != nil && r.Options != nil {
		return r, nil
	}
	host, err := readHostResolvers(hostFile, behindStub)
	if err != nil {
		return nil, err
	}
	r.takeHost(host, atts)
	return r, nil
}

// add appends what a further network says.
func (d *DNS) add(o DNS) {
	d.Nameservers = appendNew(d.Nameservers, o.Nameservers)
	search := o.Search
	if len(search) == 0 && o.Domain != "" {
		search = []string{o.Domain}
	}
	d.Search = appendNew(d.Search, search)
	d.Options = appendNew(d.Options, o.Options)
}

func appendNew(to, more []string) []string {
	for _, s := range more {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// take uses what d says of each thing that nothing is known of yet. d is checked.
func (r *Resolvers) take(d DNS) {
	if len(r.Servers) == 0 {
		for _, s := range d.Nameservers {
			if a, err := netip.ParseAddr(s); err == nil {
				r.Servers = append(r.Servers, Resolver{Addr: a})
			}
		}
	}
	var all DNS
	all.add(d)
	if r.Search == nil {
		r.Search = all.Search
	}
	if r.Options == nil {
		r.Options = all.Options
	}
}

// takeHost fills up from the host's file. Search domains of the host say nothing
// in a container that can't reach the host's network, and would ask it for
// the names of others.
func (r *Resolvers) takeHost(host hostResolvers, atts []Attachment) {
	v4, v6 := families(atts)
	if len(r.Servers) == 0 && !r.internal {
		for _, a := range host.servers {
			switch {
			case a.Zone() != "" || a.Is6() && a.IsLinkLocalUnicast():
			case a.IsLoopback() || a.IsUnspecified(): // resolvers take 0.0.0.0 for this host
				r.Servers = append(r.Servers, Resolver{Addr: a, Loopback: true})
			case a.Is4() && v4 || a.Is6() && v6:
				r.Servers = append(r.Servers, Resolver{Addr: a})
			}
		}
	}
	if r.Search == nil && !r.internal {
		r.Search = cutSearch(host.search)
	}
	if r.Options == nil {
		r.Options = host.options
	}
}

// families says which families a container with atts has beyond its link. One
// without an interface of ours, as in a joined namespace, may have both.
func families(atts []Attachment) (v4, v6 bool) {
	known := false
	for _, a := range atts {
		for _, p := range a.Addresses {
			known = true
			v4 = v4 || p.Addr().Is4()
			v6 = v6 || p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() && !a.NoIPv6
		}
	}
	return v4 || !known, v6 || !known
}

// internalOnly says whether the networks lead nowhere: each has addresses, and none
// a default route.
func internalOnly(atts []Attachment) bool {
	addresses := false
	for _, a := range atts {
		addresses = addresses || len(a.Addresses) > 0
		isDefault := func(r Route) bool { return r.Dst.Bits() == 0 }
		if len(a.Gateways) > 0 || slices.ContainsFunc(a.Routes, isDefault) {
			return false
		}
	}
	return addresses
}

// cutSearch keeps as many domains as every C library takes.
func cutSearch(search []string) []string {
	total := 0
	for i, s := range search {
		total += len(s) + 1
		if i == maxSearch || total > maxSearchBytes {
			return search[:i]
		}
	}
	return search
}

// Loopback returns the servers that only the host's loopback serves, at their
// port. Somebody has to forward them.
func (r *Resolvers) Loopback() []netip.AddrPort {
	var all []netip.AddrPort
	for _, s := range r.Servers {
		if !s.Loopback {
			continue
		}
		a := s.Addr
		if a.IsUnspecified() {
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if s.Addr.Is6() {
				a = netip.IPv6Loopback()
			}
		}
		all = append(all, netip.AddrPortFrom(a, 53))
	}
	return all
}

// Content returns the file. forwarders, the addresses at which the container
// reaches a forwarder of the host's loopback, stand in the place of the first
// server there; without one these servers are left out. What is more than a
// resolver reads is cut.
func (r *Resolvers) Content(forwarders ...netip.Addr) []byte {
	var servers []netip.Addr
	for _, s := range r.Servers {
		if s.Loopback {
			servers = append(servers, forwarders...)
		} else {
			servers = append(servers, s.Addr)
		}
	}
	return r.file(servers)
}

// HostContent returns the file of a container in the host's own network
// namespace, where the host's loopback serves it as well.
func (r *Resolvers) HostContent() []byte {
	var servers []netip.Addr
	for _, s := range r.Servers {
		servers = append(servers, s.Addr)
	}
	return r.file(servers)
}

// file writes a resolv.conf with servers, each once.
func (r *Resolvers) file(servers []netip.Addr) []byte {
	var out bytes.Buffer
	if len(r.Search) > 0 && (len(r.Search) > 1 || r.Search[0] != ".") {
		fmt.Fprintf(&out, "search %s\n", strings.Join(cutSearch(r.Search), " "))
	}
	var written []netip.Addr
	for _, a := range servers {
		if len(written) < maxServers && !slices.Contains(written, a) {
			written = append(written, a)
			fmt.Fprintf(&out, "nameserver %s\n", a)
		}
	}
	if len(r.Options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(r.Options, " "))
	}
	return out.Bytes()
}

// ResolvConf returns the content of the container's /etc/resolv.conf: flags first,
// then what the networks say, then the host's resolvers that can be reached from
// inside. hostFile is the path of the host's /etc/resolv.conf. loopback lists the
// host's resolvers that only the host's loopback serves; they are not in content.
// A caller that forwards them uses NewResolvers, and Content with the forwarder.
func ResolvConf(hostFile string, flags DNS, atts []Attachment) (content []byte, loopback []netip.AddrPort, err error) {
	r, err := NewResolvers(hostFile, flags, atts)
	if err != nil {
		return nil, nil, err
	}
	return r.Content(), r.Loopback(), nil
}
