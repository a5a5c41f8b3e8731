package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
)

// A Program is what runs for one plugin of a list.
type Program struct {
	Type     string   `json:"type"`
	Path     string   `json:"path"`
	Versions []string `json:"supportedVersions"`
}

// Programs asks all plugins for the versions that they speak.
func (r Runtime) Programs(ctx context.Context, n *netsetup.Network) (all []Program, err error) {
	steps, err := r.steps(n)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		conf, err := configure(nil, map[string]any{"cniVersion": n.CNIVersion})
		if err != nil {
			return nil, err
		}
		out, err := r.run(ctx, s, Invocation{Command: "VERSION", Config: conf})
		if err != nil {
			return nil, err
		}
		said := struct{ SupportedVersions []string }{}
		if err := json.Unmarshal(out, &said); err != nil {
			return nil, fmt.Errorf("plugin %s: VERSION: its answer: %w", s.Type, err)
		}
		all = append(all, Program{s.Type, s.path, said.SupportedVersions})
	}
	return all, nil
}

// call is one call for an attachment.
func (r Runtime) call(ctx context.Context, command string, n *netsetup.Network, s step, t Target, prev *Result) ([]byte, error) {
	add := map[string]any{"name": n.Name, "cniVersion": n.CNIVersion}
	if prev != nil {
		add["prevResult"] = prev
	}
	asked, err := askedOf(s.Raw, t.Capabilities)
	if err == nil && len(asked) > 0 {
		add["runtimeConfig"] = asked
	}
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Type, err)
	}
	conf, err := configure(s.Raw, add)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", s.Type, err)
	}
	var args []string
	for _, pair := range t.Args {
		args = append(args, pair[0]+"="+pair[1])
	}
	return r.run(ctx, s, Invocation{
		Command: command, ContainerID: t.ContainerID, NetNS: t.NetNS, IfName: t.IfName, Args: strings.Join(args, ";"), Config: conf,
	})
}

func (r Runtime) run(ctx context.Context, s step, i Invocation) ([]byte, error) {
	i.Dirs, i.Env = r.Dirs, r.Env
	out, err := i.Run(ctx, s.path, func(line string) {
		if _, said, ok := strings.Cut(line, ": "); ok && r.Warn != nil {
			r.Warn(s.Type + ": " + said) // and not what Self is called
		}
	})
	if err != nil {
		err = fmt.Errorf("plugin %s: %w", s.Type, err)
	}
	return out, err
}

// askedOf leaves those of capabilities that the plugin has.
func askedOf(raw []byte, capabilities map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	var conf struct {
		Capabilities map[string]bool `json:"capabilities"`
	}
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	asked := map[string]json.RawMessage{}
	for name, value := range capabilities {
		if conf.Capabilities[name] {
			asked[name] = value
		}
	}
	return asked, nil
}

// configure is what a plugin finds on stdin: its own object without our word, and add.
func configure(raw []byte, add map[string]any) ([]byte, error) {
	conf := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &conf); err != nil {
			return nil, err
		}
	}
	delete(conf, "nsinit")
	for key, value := range add {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		conf[key] = data
	}
	return json.Marshal(conf)
}
