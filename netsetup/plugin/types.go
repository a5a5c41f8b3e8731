package plugin

// Types are all plugins that nsinit is, in the order of CNI's own folders: those that
// make an interface, those that change one, those that give addresses.
func Types() []string {
	return []string{
		"bridge", "ptp", "macvlan", "ipvlan", "vlan", "host-device", "dummy", "tap", "loopback",
		"portmap", "firewall", "bandwidth", "tuning", "sbr", "vrf",
		"host-local", "static",
	}
}

// Has tells whether nsinit is a plugin of type t.
func Has(t string) bool { return kindOf(t) != unknown }
