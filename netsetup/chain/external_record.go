package chain

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
)

// The kinds of objects that are recorded for plugins that are run.
const (
	KindPlugin = "plugin"     // Name is its type; undone by its DEL
	KindResult = "cni-result" // Name is the file that the result of the last plugin is kept in
)

// A keep is what a plugin's DEL needs, in the record.
type keep struct {
	NetNS string          `json:"netns"` // the path that ADD got
	Inode uint64          `json:"inode"` // of the namespace there
	Args  string          `json:"args,omitzero"`
	Conf  json.RawMessage `json:"conf"`           // stdin, without prevResult
	Prev  json.RawMessage `json:"prev,omitempty"` // the result before it, where the last one isn't kept
}

func (k keep) object(p netsetup.Plan, kind string, dirs []string) (netsetup.Object, error) {
	was, err := json.Marshal(k)
	return netsetup.Object{
		Kind: KindPlugin, Network: p.Network.Name, Name: kind, Owner: p.Owner, IfName: p.IfName,
		Dir: strings.Join(dirs, string(os.PathListSeparator)), Was: string(was),
	}, err
}

func (k keep) invocation(o netsetup.Object, command string, conf []byte) cni.Invocation {
	return cni.Invocation{
		Command: command, ContainerID: o.Owner, NetNS: k.NetNS, IfName: o.IfName, Args: k.Args,
		Dirs: filepath.SplitList(o.Dir), Config: conf,
	}
}

// undoPlugin runs DEL, with the last result if it is there.
func undoPlugin(ctx context.Context, o netsetup.Object) error {
	var k keep
	if err := json.Unmarshal([]byte(o.Was), &k); err != nil {
		return fmt.Errorf("plugin %s: record: %w", o.Name, err)
	}
	path, err := cni.Find(o.Name, filepath.SplitList(o.Dir))
	if err != nil {
		return err
	}
	if !sameNetNS(k) {
		k.NetNS = "" // gone: a plugin's DEL does without (SPEC, DEL)
	}
	prev, ok := cachedResult(o)
	if !ok {
		prev = k.Prev
	}
	conf, err := withMember(k.Conf, "prevResult", prev)
	if err != nil {
		return err
	}
	_, err = k.invocation(o, "DEL", conf).Run(ctx, path, nil)
	return err
}

// sameNetNS tells whether the namespace of k is still behind its path. By now that may
// be another's: process ids and names are given again.
func sameNetNS(k keep) bool {
	ns, err := netsetup.OpenNetNS(k.NetNS)
	if err != nil {
		return false
	}
	defer ns.Close()
	inode, err := ns.Inode()
	return err == nil && inode == k.Inode
}

// sandboxOf is the path of target that other programs find it by.
func sandboxOf(target *netsetup.NetNS) (path string, inode uint64, err error) {
	path = target.File().Name()
	if !filepath.IsAbs(path) {
		return "", 0, fmt.Errorf("%s: has no path that a plugin could be given", path)
	}
	inode, err = target.Inode()
	return path, inode, err
}

// saveResult keeps the result of the last plugin so far, which DEL and CHECK of all are
// given.
func saveResult(p netsetup.Plan, target *netsetup.NetNS, res cni.Result) error {
	sandbox, _, err := sandboxOf(target)
	if err != nil {
		return err
	}
	result, err := json.Marshal(res.To(p.Network.CNIVersion))
	if err != nil {
		return err
	}
	list, err := p.Network.MarshalJSON()
	if err != nil {
		return err
	}
	return cni.Kept{
		ContainerID: p.Owner, Config: list, IfName: p.IfName, Network: p.Network.Name, NetNS: sandbox, Result: result,
	}.Save()
}

// cachedResult is the last result of o's attachment, if it is kept.
func cachedResult(o netsetup.Object) (json.RawMessage, bool) {
	k, ok := cni.Load(o.Network, o.Owner, o.IfName)
	return k.Result, ok
}

// keepResult records, before the first plugin is run, that the result will be kept: what is
// recorded first is undone last, and the DEL of each plugin is given the result. One of
// the same names that is left, and of which there is no record, would be taken for it.
func keepResult(p netsetup.Plan, record netsetup.Recorder) error {
	if !runsPlugins(p) {
		return nil
	}
	o := netsetup.Object{
		Kind: KindResult, Network: p.Network.Name, Owner: p.Owner, IfName: p.IfName,
		Name: cni.KeptPath(p.Network.Name, p.Owner, p.IfName),
	}
	if err := record(o); err != nil {
		return fmt.Errorf("%s: record: %w", o.Name, err)
	}
	return undoResult(o)
}

func undoResult(o netsetup.Object) error {
	if o.Name != cni.KeptPath(o.Network, o.Owner, o.IfName) || filepath.Dir(o.Name) != cni.ResultDir {
		return fmt.Errorf("result %.200q: not a file of its attachment", o.Name)
	}
	return cni.Forget(o.Name)
}

// withMember adds a member to an object; none without a value.
func withMember(object json.RawMessage, key string, value json.RawMessage) ([]byte, error) {
	if len(value) == 0 {
		return object, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	members[key] = value
	return json.Marshal(members)
}
