// Package plugin is nsinit as a CNI plugin: it answers one call of a runtime, for
// whatever network type, policy or address plugin the configuration names, with the
// same strategies that nsinit's own containers get.
//
// What an ADD makes on the host is recorded before it is made, below the state
// directory: DEL and GC work from these records alone, and so does Collect, for
// attachments whose namespace is gone.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/chain"
	"github.com/nsinit/nsinit/netsetup/cni"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A Plugin is where records and remembered networks lie.
type Plugin struct {
	Root    string            // state directory, /run/nsinit of the command line
	DataDir string            // what outlives a boot
	Name    string            // what the program is called: host-local and static serve other plugins
	Warn    func(line string) // one line for the administrator

	// Recorded returns what the records of all containers and attachments hold: rules
	// that somebody flushed come back for all. Nil: those of attachments.
	Recorded func() ([]netsetup.Object, error)
}

// Serve answers the call that env and stdin hold: the result or the error goes to
// stdout as JSON. It returns the exit code, 1 for an error.
func (p *Plugin) Serve(ctx context.Context, env func(string) string, stdin io.Reader, stdout io.Writer) int {
	answer, version, err := p.call(ctx, env, stdin)
	if err == nil && answer == nil {
		return 0
	}
	code := 0
	if err != nil {
		code, answer = 1, failure(err, version)
	}
	out := json.NewEncoder(stdout)
	out.SetIndent("", "    ")
	out.SetEscapeHTML(false)
	if err := out.Encode(answer); err != nil {
		return 1
	}
	return code
}

// failure is the error's form on stdout.
func failure(err error, version string) *cni.Error {
	var e *cni.Error
	if !errors.As(err, &e) {
		e = cni.Errorf(cni.CodeInternal, "%s", oneLine(err))
	}
	if e.CNIVersion = version; version == "" {
		versions := cni.Versions()
		e.CNIVersion = versions[len(versions)-1]
	}
	return e
}

// call runs one command; a nil answer prints nothing.
func (p *Plugin) call(ctx context.Context, env func(string) string, stdin io.Reader) (answer any, version string, err error) {
	c, err := readCall(p.Name, env, stdin)
	if err != nil {
		return nil, c.version(), err
	}
	switch c.command {
	case "VERSION":
		answer = versionInfo{CNIVersion: c.version(), Supported: cni.Versions()}
	case "ADD":
		answer, err = p.add(ctx, c)
	case "CHECK":
		err = p.check(ctx, c)
	case "DEL":
		err = p.del(ctx, c)
	case "GC":
		err = p.gc(ctx, c)
	case "STATUS":
		err = p.status(ctx, c)
	}
	return answer, c.version(), err
}

type versionInfo struct {
	CNIVersion string   `json:"cniVersion"`
	Supported  []string `json:"supportedVersions"`
}

func (p *Plugin) options() policy.Options {
	recorded := p.Recorded
	if recorded == nil {
		recorded = p.Objects
	}
	return policy.Options{StateDir: p.DataDir, Recorded: recorded, RuntimeListens: true}
}

// kind tells what the configuration's type is.
type kind int

const (
	unknown kind = iota
	network      // makes an interface
	chained      // changes one
	address      // gives addresses to another plugin
)

func kindOf(t string) kind {
	switch {
	case t == "host-local" || t == "static":
		return address
	case t == "loopback": // as a policy it has nothing to do for our own containers; others want it up
		return network
	case chain.PolicyOf(t, policy.Options{}) != nil:
		return chained
	}
	if _, err := netsetup.StrategyOf(t); err == nil && t != "netns" && t != "net-device" {
		return network
	}
	return unknown
}
