package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Where the container of the CNI subject finds its network namespace.
const cniNetNS = "/run/netns/bench-cni"

// makeBundles writes the bundles that crun and runc run: what "runc spec" writes,
// without a terminal, running true, with the network namespace that the name says.
func (h *host) makeBundles() error {
	for name, network := range map[string]specs.LinuxNamespace{
		"empty": {Type: specs.NetworkNamespace},
		"cni":   {Type: specs.NetworkNamespace, Path: cniNetNS},
	} {
		dir := h.bundle(name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := command("runc", "spec", "--bundle", dir); err != nil {
			return err
		}
		if err := editBundle(dir, func(spec *specs.Spec) { h.fill(spec, network) }); err != nil {
			return err
		}
	}
	return h.tryDeviceRules()
}

// tryDeviceRules takes the device rules out of the bundles where the machine
// refuses them (on cgroup v2 they are BPF programs): the peers then do less, as
// nsinit does while it has no device rules.
func (h *host) tryDeviceRules() error {
	for _, runtime := range runtimes() {
		err := command(runtime, "run", "--bundle", h.bundle("empty"), "trial")
		if err == nil {
			continue
		}
		fmt.Printf("bundles: without device rules, since they fail: %s\n", err)
		for _, name := range []string{"empty", "cni"} {
			if err := editBundle(h.bundle(name), func(spec *specs.Spec) { spec.Linux.Resources = nil }); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// runtimes are those of the peers that are installed.
func runtimes() []string {
	var found []string
	for _, name := range []string{"crun", "runc"} {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		}
	}
	return found
}

func (h *host) bundle(name string) string { return filepath.Join(h.work, "bundle-"+name) }

func (h *host) fill(spec *specs.Spec, network specs.LinuxNamespace) {
	spec.Process.Terminal = false
	spec.Process.Args = []string{"/bin/true"}
	spec.Root = &specs.Root{Path: h.root}
	for i, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			spec.Linux.Namespaces[i] = network
		}
	}
}

// editBundle changes a bundle's config.json.
func editBundle(dir string, edit func(*specs.Spec)) error {
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	edit(&spec)
	if data, err = json.MarshalIndent(spec, "", "\t"); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// makeCNI writes the networks of the reference plugins. "bench" is the one that all
// others have too: the bridge, a lease from host-local, a default route; no
// masquerading, with which they do more. "chain" is what engines make by default:
// masquerading, published ports, a firewall.
func (h *host) makeCNI() error {
	dir := filepath.Join(h.work, "net.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	err := writeList(dir, "bench", h.bridgeConf(bridge, subnet))
	for name, net := range map[string]string{"chain": "10.89.0.0/16", nsinitChain: "10.90.0.0/16"} {
		conf := h.bridgeConf(name, net)
		conf["ipMasq"] = true
		published := map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}}
		err = errors.Join(err, writeList(dir, name, conf, published, map[string]any{"type": "firewall"}))
	}
	return err
}

// bridgeConf is a bridge plugin's configuration. The first addresses are left to
// the bridge, and to those who take them without a lease.
func (h *host) bridgeConf(name, subnet string) map[string]any {
	first := netip.MustParsePrefix(subnet).Addr().Next()
	start := first.As4()
	start[2]++
	pool := map[string]any{"subnet": subnet, "rangeStart": netip.AddrFrom4(start).String(), "gateway": first.String()}
	return map[string]any{
		"type":             "bridge",
		"bridge":           name,
		"isDefaultGateway": true,
		"ipam":             map[string]any{"type": "host-local", "ranges": []any{[]any{pool}}, "dataDir": filepath.Join(h.work, "leases")},
	}
}

func writeList(dir, name string, plugins ...any) error {
	data, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": name, "plugins": plugins})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".conflist"), data, 0o644)
}
