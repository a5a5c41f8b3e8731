package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nsinit/nsinit/netsetup/gate"
)

// ResultDir is where CNI's library keeps results. Ours lie there as well, so that its
// tools find the attachment.
const ResultDir = "/var/lib/cni/results"

const keptKind = "cniCacheV1"

// A Kept is what is kept of an attachment, in the form of CNI's library: CHECK and DEL of
// all plugins are given the result.
type Kept struct {
	Kind         string                     `json:"kind"`
	ContainerID  string                     `json:"containerId"`
	Config       []byte                     `json:"config"` // the list
	IfName       string                     `json:"ifName"`
	Network      string                     `json:"networkName"`
	NetNS        string                     `json:"netns,omitempty"`
	Args         [][2]string                `json:"cniArgs,omitempty"`
	Capabilities map[string]json.RawMessage `json:"capabilityArgs,omitempty"`
	Result       json.RawMessage            `json:"result"`
}

// KeptPath is the file that keeps an attachment.
func KeptPath(network, containerID, ifName string) string {
	return filepath.Join(ResultDir, network+"-"+containerID+"-"+ifName)
}

// Save writes k in one step.
func (k Kept) Save() error {
	k.Kind = keptKind
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	path := KeptPath(k.Network, k.ContainerID, k.IfName)
	if err := os.MkdirAll(ResultDir, 0o700); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	gate.Change()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	gate.Change()
	return os.Rename(path+".new", path)
}

// Load reads what is kept of an attachment; ok is false if that is nothing. Names can
// be joined in two ways to one file's: the one inside counts.
func Load(network, containerID, ifName string) (k Kept, ok bool) {
	k, ok = readKept(KeptPath(network, containerID, ifName))
	return k, ok && k.Network == network && k.ContainerID == containerID && k.IfName == ifName
}

func readKept(path string) (k Kept, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &k) != nil {
		return k, false
	}
	return k, len(k.Result) > 0
}

// AllKept is what is kept of a network's attachments.
func AllKept(network string) (all []Kept, err error) {
	entries, err := os.ReadDir(ResultDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(ResultDir, e.Name())
		k, ok := readKept(path)
		if ok && k.Network == network && KeptPath(k.Network, k.ContainerID, k.IfName) == path {
			all = append(all, k)
		}
	}
	return all, err
}

// Forget removes what is kept at path, a KeptPath.
func Forget(path string) error {
	for _, path := range []string{path, path + ".new"} {
		gate.Change()
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
