package netsetup

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

// A HostName is one line of /etc/hosts beside the container's own.
type HostName struct {
	Name string
	IP   string // an address, or "host-gateway": the host, as the container reaches it
}

// HostGateway is the address of --add-host that means the host, in docker's and podman's word.
const HostGateway = "host-gateway"

// Hosts returns the content of the container's /etc/hosts: what add says, then
// localhost, then hostname with the container's addresses. gateways are the
// addresses by which the container reaches its host, for "host-gateway"; without
// one that word is an error. A hostname without an address is that of the
// loopback, so that it resolves.
func Hosts(hostname string, addrs, gateways []netip.Addr, add []HostName) ([]byte, error) {
	var out bytes.Buffer
	line := func(ip, names string) { fmt.Fprintf(&out, "%s\t%s\n", ip, names) }
	for _, h := range add {
		if err := checkHostName(h.Name); err != nil {
			return nil, faultf("add-host", h.Name, "%w", err)
		}
		ips, err := hostIPs(h.IP, gateways)
		if err != nil {
			return nil, faultf("add-host", h.Name+":"+h.IP, "%w", err)
		}
		for _, ip := range ips {
			line(ip.String(), h.Name)
		}
	}
	line("127.0.0.1", "localhost")
	line("::1", "localhost ip6-localhost ip6-loopback")
	if hostname == "" {
		return out.Bytes(), nil
	}
	if err := checkHostName(hostname); err != nil {
		return nil, faultf("hostname", hostname, "%w", err)
	}
	names := hostname
	if short, _, dotted := strings.Cut(hostname, "."); dotted && short != "" {
		names += " " + short
	}
	for _, a := range addrs {
		line(a.String(), names)
	}
	if len(addrs) == 0 {
		line("127.0.0.1", names)
	}
	return out.Bytes(), nil
}

// hostIPs reads the address of an entry; one in brackets is meant as well.
func hostIPs(ip string, gateways []netip.Addr) ([]netip.Addr, error) {
	if ip == HostGateway {
		if len(gateways) == 0 {
			return nil, fmt.Errorf("no network with a gateway, so the host has no address here; give one")
		}
		return gateways, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, fmt.Errorf("%s is no address; as NAME:10.1.0.9, or NAME:%s", quoted(ip), HostGateway)
	}
	return []netip.Addr{a}, nil
}

// checkHostName refuses what would be more than one word of a line, or a comment.
func checkHostName(name string) error {
	if name == "" {
		return fmt.Errorf("empty; a name, as db.lan")
	}
	if len(name) > 255 {
		return fmt.Errorf("%d bytes; at most 255", len(name))
	}
	for _, r := range name {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == '#' || r == unicode.ReplacementChar {
			return fmt.Errorf("character %q is not allowed", r)
		}
	}
	return nil
}
