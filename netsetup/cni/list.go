package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/nsinit/nsinit/netsetup"
)

// A Runtime calls the plugins of a list, one after the other, as CNI's runtimes do.
type Runtime struct {
	Dirs []string               // where plugins lie
	Own  func(kind string) bool // whether Self is a plugin of that type; those in Dirs come first
	Self string                 // the program that is
	Env  []string               // what plugins find in their environment besides
	Warn func(line string)      // what a plugin says although it succeeds
}

// A Target is the attachment that a list is called for.
type Target struct {
	ContainerID  string
	NetNS        string // a path; "" = gone
	IfName       string
	Args         [][2]string
	Capabilities map[string]json.RawMessage
}

// A step is one plugin of a list with its program.
type step struct {
	netsetup.Plugin
	path string
}

// steps finds the programs of a list, before anything is called.
func (r Runtime) steps(n *netsetup.Network) ([]step, error) {
	if !AtLeast(n.CNIVersion, "0.3.0") {
		return nil, fmt.Errorf("network %q: cniVersion: %q: plugins would answer in a form of before 0.3.0; \"0.3.1\" or later", n.Name, n.CNIVersion)
	}
	var all []step
	var faults []error
	for i, p := range n.Plugins {
		path, err := Find(p.Type, r.Dirs)
		if errors.Is(err, fs.ErrNotExist) && r.Own != nil && r.Own(p.Type) && !netsetup.RunsPlugin(p) {
			path, err = r.Self, nil
		}
		if err != nil {
			err = fmt.Errorf("network %q: plugins[%d].type: %w", n.Name, i, err)
		}
		all, faults = append(all, step{p, path}), append(faults, err)
	}
	return all, errors.Join(faults...)
}

// Add calls ADD of all plugins and keeps the result. After a failure it calls DEL of those
// that were called.
func (r Runtime) Add(ctx context.Context, n *netsetup.Network, t Target) (result Result, err error) {
	steps, err := r.steps(n)
	if err != nil {
		return result, err
	}
	if err := free(n, t); err != nil {
		return result, err
	}
	var prev *Result
	for i, s := range steps {
		if result, err = r.add(ctx, n, s, t, prev); err != nil {
			return result, errors.Join(err, r.del(ctx, n, steps[:i+1], t, prev))
		}
		prev = &result
	}
	if err = keep(n, t, result); err != nil {
		return result, errors.Join(err, r.del(ctx, n, steps, t, prev))
	}
	return result, nil
}

// free refuses an attachment that is there: the DELs behind a failure would take it away.
func free(n *netsetup.Network, t Target) error {
	if _, ok := Load(n.Name, t.ContainerID, t.IfName); ok {
		return fmt.Errorf("network %q: %s of container %s is attached already; del comes first", n.Name, t.IfName, t.ContainerID)
	}
	ns, err := netsetup.OpenNetNS(t.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	has, err := ns.HasLink(t.IfName)
	if err == nil && has && t.IfName != "lo" {
		err = fmt.Errorf("%s: has an interface %s already", t.NetNS, t.IfName)
	}
	return err
}

func (r Runtime) add(ctx context.Context, n *netsetup.Network, s step, t Target, prev *Result) (Result, error) {
	out, err := r.call(ctx, "ADD", n, s, t, prev)
	if err != nil {
		return Result{}, err
	}
	result, err := ParseResult(out)
	if err != nil {
		return result, fmt.Errorf("plugin %s: its answer: %w", s.Type, err)
	}
	return result.To(n.CNIVersion), nil
}

func keep(n *netsetup.Network, t Target, result Result) error {
	list, err := n.MarshalJSON()
	if err != nil {
		return err
	}
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return Kept{
		ContainerID: t.ContainerID, Config: list, IfName: t.IfName, Network: n.Name, NetNS: t.NetNS,
		Args: t.Args, Capabilities: t.Capabilities, Result: data,
	}.Save()
}

// kept is what an Add has left: its result, nil if there is none, and, for what t leaves
// open, what was asked then.
func kept(n *netsetup.Network, t Target) (Target, *Result) {
	k, ok := Load(n.Name, t.ContainerID, t.IfName)
	if !ok {
		return t, nil
	}
	if len(t.Args) == 0 {
		t.Args = k.Args
	}
	if len(t.Capabilities) == 0 {
		t.Capabilities = k.Capabilities
	}
	result, err := ParseResult(k.Result)
	if err != nil {
		return t, nil
	}
	result = result.To(n.CNIVersion)
	return t, &result
}

// Check calls CHECK of all plugins until one finds something. A list that disables it is
// not checked.
func (r Runtime) Check(ctx context.Context, n *netsetup.Network, t Target) error {
	steps, err := r.steps(n)
	switch {
	case err != nil:
		return err
	case !AtLeast(n.CNIVersion, "0.4.0"):
		return fmt.Errorf("network %q: cniVersion: %q: CHECK came with 0.4.0", n.Name, n.CNIVersion)
	case n.DisableCheck:
		return nil
	}
	t, result := kept(n, t)
	if result == nil {
		return fmt.Errorf("network %q: %s of container %s is not attached: there is no %s", n.Name, t.IfName, t.ContainerID, KeptPath(n.Name, t.ContainerID, t.IfName))
	}
	for _, s := range steps {
		if _, err := r.call(ctx, "CHECK", n, s, t, result); err != nil {
			return err
		}
	}
	return nil
}

// Del calls DEL of all plugins, the last one first. It goes on after an error; what is
// kept stays then, for another try.
func (r Runtime) Del(ctx context.Context, n *netsetup.Network, t Target) error {
	steps, err := r.steps(n)
	if err != nil {
		return err
	}
	t, result := kept(n, t)
	if !AtLeast(n.CNIVersion, "0.4.0") {
		result = nil // it came with that version
	}
	if err := r.del(ctx, n, steps, t, result); err != nil {
		return err
	}
	return Forget(KeptPath(n.Name, t.ContainerID, t.IfName))
}

func (r Runtime) del(ctx context.Context, n *netsetup.Network, steps []step, t Target, result *Result) error {
	var errs []error
	for _, s := range slices.Backward(steps) {
		_, err := r.call(ctx, "DEL", n, s, t, result)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// An AttachmentID tells attachments of one network apart, in a GC's configuration.
type AttachmentID struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// GC calls DEL for what is kept of attachments whose namespace is gone, and then GC of all
// plugins, which are told what is still kept, and valid besides. It goes on after an error.
func (r Runtime) GC(ctx context.Context, n *netsetup.Network, valid []AttachmentID) error {
	steps, err := r.steps(n)
	if err != nil || n.DisableGC {
		return err
	}
	all, err := AllKept(n.Name)
	errs := []error{err}
	valid = append([]AttachmentID{}, valid...) // not null
	for _, k := range all {
		if ns, err := netsetup.OpenNetNS(k.NetNS); err == nil {
			errs = append(errs, ns.Close())
			valid = append(valid, AttachmentID{k.ContainerID, k.IfName})
			continue
		}
		errs = append(errs, r.Del(ctx, n, Target{ContainerID: k.ContainerID, IfName: k.IfName}))
	}
	if !AtLeast(n.CNIVersion, "1.1.0") {
		return errors.Join(errs...)
	}
	for _, s := range steps {
		conf, err := configure(s.Raw, map[string]any{
			"name": n.Name, "cniVersion": n.CNIVersion, "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid,
		})
		if err == nil {
			_, err = r.run(ctx, s, Invocation{Command: "GC", Config: conf})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Status asks all plugins whether an ADD could work, until one says no. Before 1.1.0 there
// is no such question.
func (r Runtime) Status(ctx context.Context, n *netsetup.Network) error {
	steps, err := r.steps(n)
	if err != nil || !AtLeast(n.CNIVersion, "1.1.0") {
		return err
	}
	for _, s := range steps {
		if _, err := r.call(ctx, "STATUS", n, s, Target{}, nil); err != nil {
			return err
		}
	}
	return nil
}
