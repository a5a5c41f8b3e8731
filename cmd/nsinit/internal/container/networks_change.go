package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// FreeSubnets chooses private subnets that overlap no route of the host and no network of dirs.
func (r *Runtime) FreeSubnets(ctx context.Context, dirs []string, v4, v6 bool) ([]netip.Prefix, error) {
	list, err := r.Networks(dirs)
	if err != nil {
		return nil, err
	}
	var taken []netip.Prefix
	for _, n := range list {
		for _, s := range n.Subnets {
			taken = append(taken, s.Prefix)
		}
	}
	return ipam.FreeSubnets(ctx, taken, v4, v6)
}

// AddNetwork writes the list src into dir, once planning it has found no fault. It overwrites nothing, and refuses a
// name that a network has already. It returns the file.
func (r *Runtime) AddNetwork(dir, name string, src []byte) (path string, err error) {
	if err := netsetup.CheckNetworkName(name); err != nil {
		return "", fmt.Errorf("network %q: %w", cutText(name), err)
	}
	if name == ipam.DefaultName || name == ipam.DefaultPtP {
		return "", fmt.Errorf("network %q: is one of the default networks, with their leases; choose another name", name)
	}
	path = filepath.Join(dir, name+".conflist")
	list, err := r.Networks([]string{dir})
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(list, func(n NetworkInfo) bool { return n.Name == name }); i >= 0 {
		return "", fmt.Errorf("network %q: is in %s; choose another name or run nsinit network rm %s", name, list[i].Source, name)
	}
	n, err := netsetup.ParseNetwork(src, path)
	if err != nil {
		return "", err
	}
	plans, err := chain.Plan([]netsetup.Request{{Network: n, Strategy: n.Plugins[0].Type, Source: path}})
	if err != nil {
		return "", err
	}
	if _, _, err := ipam.Look(plans[0], nil); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("network %q: %w", name, err)
	}
	return path, writeNew(path, src)
}

// writeNew writes a file that isn't there yet, whole or not at all.
func writeNew(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".nsinit-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	return errors.Join(err, os.Remove(tmp.Name()))
}

// RemoveNetwork removes the network name with what it has on the host: its bridge, its place in the firewall table, its
// leases, its file. It has to be unused; with force its containers are ended and deleted first.
func (r *Runtime) RemoveNetwork(ctx context.Context, name string, dirs []string, force bool) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("%q: is a path; name the network, and remove a file of your own by hand", cutText(name))
	}
	n, err := r.findNetwork(name, dirs)
	if err != nil {
		return err
	}
	if err := r.ensureRoot(); err != nil {
		return err
	}
	if err := r.endUsers(ctx, name, force); err != nil {
		return fmt.Errorf("network %q: %w", name, err)
	}
	if err := r.removeHostObjectsOf(ctx, name); err != nil {
		return fmt.Errorf("network %q: %w", name, err)
	}
	if err := r.removeNetwork(ctx, n); err != nil {
		return fmt.Errorf("network %q: %w", name, err)
	}
	return nil
}

// ReloadNetworks puts the rules of all containers' networks back after the host's firewall was flushed, from their
// records alone.
func (r *Runtime) ReloadNetworks(ctx context.Context) error {
	if err := os.MkdirAll(r.dataDir(), 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	net, err := netsetup.OpenHost(r.warn)
	if err != nil {
		return err
	}
	defer net.Close()
	return chain.Reload(ctx, net, policy.Options{StateDir: r.dataDir(), Recorded: r.Objects})
}

// endUsers deletes the containers on a network, or says which there are.
func (r *Runtime) endUsers(ctx context.Context, name string, force bool) error {
	states, err := r.List()
	if err != nil {
		return err
	}
	users := usersOf(name, states)
	if len(users) > 0 && !force {
		return fmt.Errorf("container %q is on it, and %d more interfaces; detach or delete them, or use --force", users[0].Container, len(users)-1)
	}
	for _, u := range users {
		if err := r.Delete(ctx, u.Container, true); err != nil {
			return err
		}
	}
	return nil
}

// removeHostObjectsOf undoes what the network has on the host and not in a container.
func (r *Runtime) removeHostObjectsOf(ctx context.Context, name string) error {
	list, err := entries(r.hostObjects())
	if err != nil {
		return err
	}
	net, err := netsetup.OpenHost(r.warn)
	if err != nil {
		return err
	}
	defer net.Close()
	// The bridge first: a container that is just being connected keeps it, and then has to keep its rules, too.
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b entry) int { return ruleRank(a) - ruleRank(b) })
	for _, e := range list {
		if e.Network != name {
			continue
		}
		if err := chain.Undo(ctx, net, e.Object); err != nil {
			return err
		}
		if e.Kind == "bridge" {
			if err := policy.ForgetDevice(ctx, e.Name, policy.Options{StateDir: r.dataDir()}); err != nil {
				return err
			}
		}
		e.Undone = true
		if err := journal(r.hostObjects(), e); err != nil {
			return err
		}
	}
	return nil
}

func ruleRank(e entry) int {
	if policy.Owns(e.Kind) {
		return 1
	}
	return 0
}

// removeNetwork removes the network's leases and then its file, by which it can be removed again after an error.
func (r *Runtime) removeNetwork(ctx context.Context, n foundNetwork) error {
	dir := ""
	if plans, err := chain.Plan([]netsetup.Request{{Network: n.Network, Strategy: n.Plugins[0].Type}}); err == nil {
		dir = plans[0].DataDir
	}
	if err := ipam.RemoveStore(ctx, n.Name, dir); err != nil {
		return err
	}
	if n.Default {
		return ipam.ForgetNetwork(ctx, r.dataDir(), n.Name)
	}
	folder := filepath.Join(filepath.Dir(n.Source), n.Name)
	if _, err := os.Stat(folder); err == nil {
		r.warn(fmt.Sprintf("network %s: its folder of plugins, %s, stays; remove it by hand", n.Name, folder))
	}
	return os.Remove(n.Source)
}
