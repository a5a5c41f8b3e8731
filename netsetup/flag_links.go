package netsetup

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The words of --network that make a device and no more: macvlan, ipvlan, vlan,
// dummy and tap. There is no default network of these: each flag is one.

// An ownOption is an option that stands for a key of a strategy's configuration.
type ownOption struct {
	name, key string
	read      func(value string) (any, error) // what goes into the configuration
}

func linkWords() []string { return []string{"dummy", "ipvlan", "macvlan", "tap", "vlan"} }

// ownOptions returns the options of one of linkWords beside those that all have.
func ownOptions(strategy string) []ownOption {
	parent := ownOption{"parent", "master", readParent}
	switch strategy {
	case "macvlan":
		return []ownOption{{"mode", "mode", readWord(macvlanModes())}, parent}
	case "ipvlan":
		return []ownOption{{"mode", "mode", readWord(ipvlanModes())}, parent}
	case "vlan":
		return []ownOption{parent, {"vlan", "vlanId", readNumber(maxVLAN)}}
	case "tap":
		return []ownOption{
			{"bridge", "bridge", readParent},
			{"group", "group", readNumber(maxID)},
			{"multi_queue", "multiQueue", readBoolean},
			{"owner", "owner", readNumber(maxID)},
		}
	}
	return nil
}

func readParent(value string) (any, error) {
	if value == loopbackIfName {
		return nil, fmt.Errorf("the loopback device carries no other; a network card's name, as eth0")
	}
	return value, CheckIfName(value)
}

func readWord(words []string) func(string) (any, error) {
	return func(value string) (any, error) {
		if !slices.Contains(words, value) {
			return nil, fmt.Errorf("unknown%s; one of %s", didYouMean(value, words), strings.Join(words, ", "))
		}
		return value, nil
	}
}

func readNumber(most int) func(string) (any, error) {
	return func(value string) (any, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > most {
			return nil, fmt.Errorf("not a number from 0 to %d", most)
		}
		return n, nil
	}
}

func readBoolean(value string) (any, error) {
	if value != "true" && value != "false" {
		return nil, fmt.Errorf("true or false is wanted")
	}
	return value == "true", nil
}

// isLinkWord says whether r is one of linkWords and not a network of that type.
func (r *Request) isLinkWord() bool {
	return r.Network == nil && slices.Contains(linkWords(), r.Strategy)
}

// ownOption reads an option into keys, false if it is none of the strategy's own.
func (r *Request) ownOption(option, value string, keys map[string]any) (bool, error) {
	if !r.isLinkWord() {
		return false, nil
	}
	for _, o := range ownOptions(r.Strategy) {
		if o.name == option {
			v, err := o.read(value)
			keys[o.key] = v
			return true, optionFault(option, value, err)
		}
	}
	return false, nil
}

// knownOptions are the names of all options that r may have.
func (r *Request) knownOptions() []string {
	if !r.isLinkWord() {
		return optionNames()
	}
	names := slices.DeleteFunc(optionNames(), func(name string) bool { return name == "bridge" })
	for _, o := range ownOptions(r.Strategy) {
		names = append(names, o.name)
	}
	slices.Sort(names)
	return names
}

// buildLink makes the network that keys describe: addresses as written, or none.
func (r *Request) buildLink(keys map[string]any) error {
	keys["type"] = r.Strategy
	if len(r.IPs) > 0 {
		if r.IPs[0].Bits() < 0 {
			a := r.IPs[0].Addr().String()
			return faultf("ip", a, "no prefix length, and %s has no pool; write ip=%s/24 or the like", r.Strategy, a)
		}
		keys["ipam"] = map[string]any{"type": "static"}
	}
	raw, err := json.Marshal(keys)
	if err != nil {
		return fmt.Errorf("network of options: %w", err)
	}
	r.Network = &Network{
		CNIVersion: "1.1.0", Name: linkName(r.Strategy, keys), Source: r.Source,
		Plugins: []Plugin{{Type: r.Strategy, Raw: raw}},
	}
	return nil
}

// linkName names the network by what it is on: whoever shares that shares its
// addresses.
func linkName(strategy string, keys map[string]any) string {
	name, on := strategy, ""
	if master, ok := keys["master"].(string); ok {
		on = "-" + master
	}
	if id, ok := keys["vlanId"].(int); ok {
		on += "." + strconv.Itoa(id)
	}
	if CheckNetworkName(name+on) != nil { // a device may be called what no network may
		on = "-" + shortHash(on)
	}
	return name + on
}
