package main

import (
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
	"github.com/nsinit/nsinit/netsetup/plugin"
)

// A cniCall is what the flags and arguments of a cni verb ask.
type cniCall struct {
	configDir  string
	pluginDirs []string
	ifName     string
	id         string
	args       string
	asked      string // capabilities, JSON

	network *netsetup.Network
	target  cni.Target
	what    string // the target as it was given
	gone    error  // why it has no namespace
}

// listSetup is the flags of verbs that take a network.
func listSetup(act func(*app, *cniCall) (int, error)) func(*app) ([]group, action) {
	return func(a *app) ([]group, action) {
		c := &cniCall{}
		return []group{c.listFlags(a)}, func(args []string) (int, error) {
			if err := c.load(a, args[0]); err != nil {
				return exitFailure, err
			}
			return act(a, c)
		}
	}
}

// attachmentSetup is the flags of verbs that take a network and a target.
func attachmentSetup(act func(*app, *cniCall) (int, error)) func(*app) ([]group, action) {
	return func(a *app) ([]group, action) {
		c := &cniCall{}
		groups := []group{c.listFlags(a)}
		groups[0].flags = append(groups[0].flags, c.targetFlags()...)
		return groups, func(args []string) (int, error) {
			err := c.load(a, args[0])
			if err == nil {
				err = c.aim(a, args[1])
			}
			if err != nil {
				return exitFailure, err
			}
			return act(a, c)
		}
	}
}

func (c *cniCall) listFlags(a *app) group {
	g := configDirFlag(&c.configDir)
	if dir, _ := a.lookupEnv("NETCONFPATH"); dir != "" {
		c.configDir = dir
	}
	g.flags = append(g.flags, flag{
		name: "plugin-dir", arg: "DIR", repeat: true, set: appendTo(&c.pluginDirs, absolutePath),
		help: "where plugins are looked up, before nsinit's own (default: CNI_PATH, else " + cni.DefaultDir + ")",
	})
	return g
}

func (c *cniCall) targetFlags() []flag {
	return []flag{
		{name: "ifname", short: "i", arg: "NAME", set: text(&c.ifName, checkCNIIfName), help: "the interface inside (default: CNI_IFNAME, else eth0)"},
		{name: "container-id", arg: "ID", set: text(&c.id, cni.CheckContainerID), help: "what plugins know the target by (default: made of its path, as cnitool does)"},
		{name: "args", arg: "KEY=VALUE;...", set: text(&c.args, nil), help: "CNI_ARGS of the plugins (default: CNI_ARGS)"},
		{name: "capability-args", arg: "JSON", set: text(&c.asked, nil), help: "an object of what is asked of plugins that have the capability, as portMappings (default: CAP_ARGS)"},
	}
}

// load reads the network. One of no directory is looked for where cnitool looks.
func (c *cniCall) load(a *app, name string) (err error) {
	if c.network, err = netsetup.LoadNetwork(name, []string{c.configDir}); err != nil {
		return err
	}
	for _, line := range c.network.Warnings {
		fmt.Fprintln(a.stderr, "nsinit: "+oneLine(line))
	}
	return nil
}

// aim finds the target, and what is asked of the plugins for it.
func (c *cniCall) aim(a *app, what string) (err error) {
	env := func(value *string, name, fallback string) {
		if *value == "" {
			*value, _ = a.lookupEnv(name)
		}
		if *value == "" {
			*value = fallback
		}
	}
	env(&c.ifName, "CNI_IFNAME", "eth0")
	env(&c.args, "CNI_ARGS", "")
	env(&c.asked, "CAP_ARGS", "")
	if err := checkCNIIfName(c.ifName); err != nil {
		return usage("CNI_IFNAME: %s: %w", quote(c.ifName), err)
	}
	c.what, c.target.IfName = what, c.ifName
	if c.target.Args, err = cniArgs(c.args); err != nil {
		return err
	}
	if c.asked != "" {
		if err := json.Unmarshal([]byte(c.asked), &c.target.Capabilities); err != nil {
			return usage("--capability-args: %s: %w; form: {\"portMappings\": [...], ...}", quote(c.asked), err)
		}
	}
	from, err := c.find(a, what)
	if c.target.ContainerID = c.id; c.id == "" {
		sum := sha512.Sum512([]byte(from))
		c.target.ContainerID = fmt.Sprintf("cnitool-%x", sum[:10])
	}
	return err
}

// checkCNIIfName allows lo, as runtimes call the type loopback's.
func checkCNIIfName(name string) error {
	if name == "lo" {
		return nil
	}
	return netsetup.CheckIfName(name)
}

// find sets the namespace, none and why if it is gone, and returns what stands for it.
func (c *cniCall) find(a *app, what string) (from string, err error) {
	if id, ok := strings.CutPrefix(what, "container:"); ok {
		if err := checkID(id); err != nil {
			return "", err
		}
		s, err := a.runtime().State(id)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return "", err
		case err != nil || s.Status != container.StatusRunning:
			c.gone = errors.New("is not running")
		default:
			c.target.NetNS = fmt.Sprintf("/proc/%d/ns/net", s.Pid)
		}
		return what, nil
	}
	path := what
	if !strings.Contains(what, "/") {
		if err := netsetup.CheckNetNSName(what); err != nil {
			return "", usage("%s: %w", quote(what), err)
		}
		path = "/run/netns/" + what
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	if c.gone = opens(path); c.gone == nil {
		c.target.NetNS = path
	}
	return path, nil
}

// opens tries a namespace.
func opens(path string) error {
	ns, err := netsetup.OpenNetNS(path)
	if err != nil {
		return err
	}
	return ns.Close()
}

// cniArgs reads KEY=VALUE;...
func cniArgs(text string) (args [][2]string, err error) {
	if text == "" {
		return nil, nil
	}
	for pair := range strings.SplitSeq(text, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || strings.Contains(value, "=") {
			return nil, usage("--args: %s: no pair; form: KEY=VALUE;...", quote(pair))
		}
		args = append(args, [2]string{key, value})
	}
	return args, nil
}

// pluginDirs are the folders that plugins are looked up in, of which given are those of
// the command line.
func (a *app) pluginDirs(given []string) []string {
	if len(given) > 0 {
		return given
	}
	path, _ := a.lookupEnv("CNI_PATH")
	if dirs := filepath.SplitList(path); len(dirs) > 0 {
		return dirs
	}
	return []string{cni.DefaultDir}
}

func (c *cniCall) runtime(a *app) cni.Runtime {
	dirs := a.pluginDirs(c.pluginDirs)
	var env []string
	if a.root != "" {
		env = []string{rootVariable + "=" + a.root}
	}
	return cni.Runtime{
		Env: env, Dirs: dirs, Own: plugin.Has, Self: "/proc/self/exe",
		Warn: func(line string) { fmt.Fprintln(a.stderr, "nsinit: "+oneLine(line)) },
	}
}

func (a *app) printPrograms(programs []cni.Program) error {
	if a.json {
		return a.printJSON(programs)
	}
	rows := [][]string{{"TYPE", "PROGRAM", "VERSIONS"}}
	for _, p := range programs {
		rows = append(rows, []string{p.Type, p.Path, strings.Join(p.Versions, ", ")})
	}
	return a.print(table(rows, nil))
}
