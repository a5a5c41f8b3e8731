package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/netsetup"
)

// Limits of resolv.conf(5).
const (
	maxNameservers = 3
	maxSearch      = 6
	maxSearchBytes = 256
)

// hostGateway is the word for the address at which the container reaches the host.
const hostGateway = "host-gateway"

// parseAddHost parses `NAME:IP`, or docker's newer `NAME=IP`; an IPv6 address may
// stand in brackets. The IP may be the word host-gateway.
func parseAddHost(s string) (container.HostEntry, error) {
	i := strings.IndexAny(s, ":=")
	if i < 0 {
		return container.HostEntry{}, errors.New("no address")
	}
	name, ip := s[:i], s[i+1:]
	if err := checkDomain(name); err != nil {
		return container.HostEntry{}, fmt.Errorf("name: %w", err)
	}
	if ip == hostGateway {
		return container.HostEntry{Name: name, IP: ip}, nil
	}
	if n := len(ip); n > 2 && ip[0] == '[' && ip[n-1] == ']' {
		ip = ip[1 : n-1]
	}
	addr, err := parseAddr(ip)
	if err != nil {
		return container.HostEntry{}, fmt.Errorf("%w, nor %s", err, hostGateway)
	}
	return container.HostEntry{Name: name, IP: addr}, nil
}

// parseAddr returns an address in its one form. A zone is the name of an interface.
func parseAddr(s string) (string, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return "", fmt.Errorf("%s is no IP address", quote(s))
	}
	if zone := addr.Zone(); zone != "" && (len(zone) > 15 || checkName(zone) != nil) {
		return "", fmt.Errorf("%s is no interface", quote(zone))
	}
	return addr.String(), nil
}

// parseSearch checks a search domain; a single dot means none.
func parseSearch(s string) (string, error) {
	if s == "." {
		return s, nil
	}
	return s, checkDomain(strings.TrimSuffix(s, "."))
}

// parseDNSOption checks one word of resolv.conf's options.
func parseDNSOption(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty")
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte(":-_.", c) < 0 {
			return "", fmt.Errorf("character %q", firstRune(s[i:]))
		}
	}
	return s, nil
}

// checkDNS holds the limits of resolv.conf, beyond which resolvers ignore lines in silence.
func checkDNS(d netsetup.DNS) error {
	if n := len(d.Nameservers); n > maxNameservers {
		return fmt.Errorf("--dns: %d resolvers; resolv.conf holds %d", n, maxNameservers)
	}
	if n := len(d.Search); n > maxSearch {
		return fmt.Errorf("--dns-search: %d domains; resolv.conf holds %d", n, maxSearch)
	}
	if n := len(strings.Join(d.Search, " ")); n > maxSearchBytes {
		return fmt.Errorf("--dns-search: %d bytes; resolv.conf holds %d", n, maxSearchBytes)
	}
	return nil
}
