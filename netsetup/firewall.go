package netsetup

import (
	"errors"
	"fmt"
	"slices"
)

// FirewallConf is what the plugin firewall is configured to do.
type FirewallConf struct {
	Ingress    string // "open", "same-bridge" or "isolated"
	AdminChain string // the chain of nsinit's table that is asked first
}

// defaultAdminChain is the plugin's.
const defaultAdminChain = "CNI-ADMIN"

// ReadFirewall reads the keys of the plugin, which stands in the list of p's network. All
// faults are returned at once. The words of other backends are taken, since what they do is
// done in nsinit's own table.
func ReadFirewall(p Plan, plugin Plugin) (FirewallConf, error) {
	conf := FirewallConf{Ingress: "open", AdminChain: defaultAdminChain}
	var backend, zone string
	var c *confReader
	err := policyConf(p, plugin, func(reader *confReader) []confKey {
		c = reader
		return []confKey{
			{"backend", c.text(&backend)},
			{"ingressPolicy", c.text(&conf.Ingress)},
			{"iptablesAdminChainName", c.text(&conf.AdminChain)},
			{"firewalldZone", c.text(&zone)},
		}
	})
	if c == nil {
		return conf, err
	}
	place := c.where + ": " + p.placeOf(plugin)
	faults := []error{err}
	fault := func(key, value, format string, args ...any) {
		faults = append(faults, faultf(place+"."+key, value, format, args...))
	}
	if !slices.Contains([]string{"", "iptables", "nftables", "firewalld"}, backend) {
		fault("backend", backend, `unknown; "nftables", "iptables" or "firewalld", all of which mean nsinit's own table%s`,
			didYouMean(backend, []string{"nftables", "iptables", "firewalld"}))
	}
	if zone != "" && zone != "trusted" {
		fault("firewalldZone", zone, `nsinit puts nothing into firewalld's zones; leave it out, or let the real plugin do it ("nsinit": "exec")`)
	}
	switch conf.Ingress {
	case "":
		conf.Ingress = "open"
	case "open", "same-bridge", "isolated":
	default:
		fault("ingressPolicy", conf.Ingress, `unknown; "open", "same-bridge" or "isolated"%s`,
			didYouMean(conf.Ingress, []string{"open", "same-bridge", "isolated"}))
	}
	if conf.AdminChain == "" {
		conf.AdminChain = defaultAdminChain
	}
	if err := checkChainName(conf.AdminChain); err != nil {
		fault("iptablesAdminChainName", conf.AdminChain, "%w", err)
	}
	return conf, errors.Join(faults...)
}

// checkChainName holds what both iptables and nft take for a chain of a user's.
func checkChainName(name string) error {
	const maxName = 28
	if len(name) > maxName {
		return fmt.Errorf("%d bytes; a chain's name has at most %d", len(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_' && c != '.') {
			return errors.New("letters, digits, - _ and . are wanted, a letter first")
		}
	}
	return nil
}
