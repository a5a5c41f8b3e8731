package netsetup

import (
	"bytes"
	"encoding/json"
)

// A ListedNetwork is one file of a search path.
type ListedNetwork struct {
	File    string
	Network *Network // nil: not even its name can be told
	Err     error    // its faults
	Hidden  string   // the file of the same name that is found before it; "" = none
}

// ListNetworks returns what LoadNetwork would find in dirs, file by file in the order
// of the search.
func ListNetworks(dirs []string) (list []ListedNetwork) {
	first := make(map[string]string)
	for _, dir := range dirs {
		for _, file := range networkFiles(dir) {
			n, err := loadFile(file)
			l := ListedNetwork{File: file, Network: n, Err: err}
			if n != nil {
				if l.Hidden = first[n.Name]; l.Hidden == "" {
					first[n.Name] = file
				}
			}
			list = append(list, l)
		}
	}
	return list
}

// ParseNetwork reads a list that is in no file yet; source is what errors name.
func ParseNetwork(src []byte, source string) (*Network, error) {
	n, err := parseNetwork(src, source)
	if err != nil {
		return nil, err
	}
	return &n.Network, nil
}

// MarshalJSON writes the list as CNI has it, with the plugins of its folder, if it
// has one, behind its own.
func (n *Network) MarshalJSON() ([]byte, error) {
	list := struct {
		CNIVersion string            `json:"cniVersion"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}{n.CNIVersion, n.Name, make([]json.RawMessage, len(n.Plugins))}
	for i, p := range n.Plugins {
		list.Plugins[i] = p.Raw
	}
	return json.Marshal(list)
}

// UnmarshalJSON reads what MarshalJSON wrote. Where it came from is not in it.
func (n *Network) UnmarshalJSON(src []byte) error {
	if bytes.Equal(src, []byte("null")) {
		return nil
	}
	parsed, err := parseNetwork(src, "recorded network")
	if err != nil {
		return err
	}
	*n = parsed.Network
	return nil
}
