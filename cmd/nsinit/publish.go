package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// parsePublish parses podman's `[[IP:][HOSTPORT]:]CONTAINERPORT[/PROTOCOL]`. An IPv6 address
// stands in brackets. Ports may be ranges, LOW-HIGH, of one length. Without a host port there is 0:
// one is chosen.
func parsePublish(s string) (netsetup.PortMapping, error) {
	m := netsetup.PortMapping{Protocol: "tcp", Count: 1}
	ports, proto, given := strings.Cut(s, "/")
	if given {
		m.Protocol = strings.ToLower(proto)
	}
	host, container, ports, err := splitPublish(ports)
	if err != nil {
		return netsetup.PortMapping{}, err
	}
	if host != "" {
		if m.HostIP, err = publishAddr(host); err != nil {
			return netsetup.PortMapping{}, err
		}
	}
	if m.ContainerPort, m.Count, err = parsePorts(container); err != nil {
		return netsetup.PortMapping{}, fmt.Errorf("container port: %w", err)
	}
	if ports != "" {
		n := 0
		if m.HostPort, n, err = parsePorts(ports); err != nil {
			return netsetup.PortMapping{}, fmt.Errorf("host port: %w", err)
		}
		if n != m.Count {
			return netsetup.PortMapping{}, fmt.Errorf("%d host ports for %d container ports; as many on both sides", n, m.Count)
		}
	}
	if err := netsetup.CheckPortMapping(m); err != nil {
		return netsetup.PortMapping{}, err
	}
	return m, nil
}

// splitPublish divides at the colons, of which an address in brackets may have more.
func splitPublish(s string) (host, container, ports string, err error) {
	bracketed := false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", "", errors.New("] is missing behind the address")
		}
		host, s, bracketed = s[1:end], s[end+1:], true
		if !strings.HasPrefix(s, ":") {
			return "", "", "", errors.New("a colon is missing behind the address")
		}
		s = s[1:]
	}
	parts := strings.Split(s, ":")
	switch n := len(parts); {
	case bracketed && host == "":
		return "", "", "", errors.New("no address in the brackets")
	case bracketed && n == 2, n == 2:
		return host, parts[1], parts[0], nil
	case bracketed:
		return "", "", "", errors.New("behind an address [HOSTPORT]:CONTAINERPORT is wanted")
	case n == 1:
		return "", parts[0], "", nil
	case n == 3:
		return parts[0], parts[2], parts[1], nil
	}
	return "", "", "", errors.New("too many colons; an IPv6 address stands in brackets")
}

func publishAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return addr, fmt.Errorf("%s is no IP address", quote(s))
	case addr.Zone() != "":
		return addr, fmt.Errorf("%s has a zone; leave it out", quote(s))
	case addr == netip.IPv6Loopback():
		return addr, errors.New("nothing published can be reached at ::1; 127.0.0.1, or an address of the host")
	}
	return addr.Unmap(), nil
}

// parsePorts parses PORT or LOW-HIGH.
func parsePorts(s string) (first, count int, err error) {
	low, high, isRange := strings.Cut(s, "-")
	if first, err = parsePort(low); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, 1, nil
	}
	last, err := parsePort(high)
	if err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("%s: the second port is below the first", quote(s))
	}
	return first, last - first + 1, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, fmt.Errorf("%s is no port, 1 to 65535", quote(s))
	}
	return int(n), nil
}

// setPublish gives the ports to the first network that can publish them.
func (r *runRequest) setPublish(networks []netsetup.Request, hasNone string) error {
	if len(r.publish) == 0 {
		return nil
	}
	for i := range networks {
		if netsetup.Publishes(networks[i]) {
			networks[i].Runtime.PortMappings = append(networks[i].Runtime.PortMappings, r.publish...)
			return nil
		}
	}
	if len(networks) == 0 && hasNone == "" {
		return errors.New("without a network; add --network bridge")
	}
	if hasNone == "" {
		hasNone = networks[0].Source
	}
	return fmt.Errorf("not with %s, which has no host side to publish on; use --network bridge, ptp, or a list with portmap", hasNone)
}
