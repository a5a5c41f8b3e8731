package differential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// A caller is libcni with the plugins of one folder, on a test's host. It notes what each plugin was asked and said.
type caller struct {
	version.PluginDecoder
	node    *netsetuptest.Node
	plugins string
	cache   string
	mu      sync.Mutex
	calls   []call
}

// A call is one execution of a plugin.
type call struct {
	plugin, command string
	stdout, stderr  string
	code            int
}

// FindInPath is libcni's own: the folder is at the same place on every host.
func (c *caller) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// errCrash is a plugin's end without an error in CNI's words.
var errCrash = errors.New("crash")

// ExecPlugin runs a plugin on the host.
func (c *caller) ExecPlugin(_ context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := c.node.Command(path)
	cmd.Env = append(env, "PATH="+netsetuptest.Path, "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := c.node.DoInside(cmd.Start); err != nil {
		return nil, err
	}
	timer := time.AfterFunc(netsetuptest.Patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer timer.Stop()
	err := cmd.Wait()
	c.note(cmd, stdout.String(), stderr.String(), env)
	if err == nil {
		return stdout.Bytes(), nil
	}
	said := &types.Error{}
	if json.Unmarshal(stdout.Bytes(), said) != nil {
		return nil, fmt.Errorf("%w: %s: %w: %s%s", errCrash, path, err, stdout.Bytes(), stderr.Bytes())
	}
	return nil, said
}

func (c *caller) note(cmd *exec.Cmd, stdout, stderr string, env []string) {
	did := call{plugin: cmd.Path[strings.LastIndexByte(cmd.Path, '/')+1:], stdout: stdout, stderr: stderr, code: cmd.ProcessState.ExitCode()}
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			did.command = v
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, did)
}

// taken returns the calls since the last time.
func (c *caller) taken() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

// do runs "ADD", "CHECK", "DEL", "GC" or "STATUS" of a case's whole network.
func (c *caller) do(tc *testCase, command string, rt libcni.RuntimeConf) error {
	list, err := libcni.NetworkConfFromBytes(tc.conflist())
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{c.plugins}, c.cache, c)
	ctx, cancel := context.WithTimeout(context.Background(), netsetuptest.Patience)
	defer cancel()
	switch command {
	case "ADD":
		_, err = cni.AddNetworkList(ctx, list, &rt)
	case "CHECK":
		err = cni.CheckNetworkList(ctx, list, &rt)
	case "DEL":
		err = cni.DelNetworkList(ctx, list, &rt)
	}
	return err
}

// A phase is a moment of a case at which the state is compared.
type phase struct {
	name, command string
}

func phases() []phase {
	return []phase{{"ADD", "ADD"}, {"CHECK", "CHECK"}, {"2nd ADD", "ADD"}, {"DEL", "DEL"}, {"2nd DEL", "DEL"}}
}

// moments are the names of all phases, and of those of a run.
func moments() []string {
	var names []string
	for _, p := range phases() {
		names = append(names, p.name)
	}
	return append(names, "run", "run's end")
}

// A history is what a case did with one set of plugins: the facts after each phase, and what was said for people.
type history struct {
	facts map[string]facts
	said  map[string]string
}

// play runs a case with the plugins in a folder, on a host of its own.
func play(t *testing.T, tc *testCase, plugins string) history {
	t.Helper()
	s := newStage(t, tc)
	c := &caller{node: s.machine.Node, plugins: plugins, cache: t.TempDir()}
	rt := libcni.RuntimeConf{ContainerID: containerID, NetNS: "/run/netns/" + containerID, IfName: tc.ifName, Args: tc.args, CapabilityArgs: tc.caps}
	h := history{facts: map[string]facts{}, said: map[string]string{}}
	added := true
	for _, p := range phases() {
		if !added && p.name != "DEL" {
			continue // libcni has no result to check, and what fails again shows nothing new
		}
		if p.name == "DEL" && tc.gone {
			s.vanish(t)
		}
		err := c.do(tc, p.command, rt)
		added = added && (err == nil || p.name != "ADD")
		said := outcome(err, c.taken())
		h.said[p.name] = fmt.Sprint(err)
		h.facts[p.name] = s.facts(t, said)
		if p.name == "ADD" && err == nil {
			for _, word := range tc.probes {
				s.probe(t, word, h.facts[p.name])
			}
		}
	}
	s.end(t)
	return h
}

// outcome is what the plugins answered, as facts: how it ended, and each plugin's result.
func outcome(err error, calls []call) facts {
	f := facts{}
	code := "ok"
	var said *types.Error
	switch {
	case errors.As(err, &said):
		code = fmt.Sprint("error ", said.Code)
	case errors.Is(err, errCrash):
		code = "crash"
	case err != nil:
		code, _, _ = strings.Cut("libcni: "+err.Error(), " in path") // where it looked is the test's
	}
	f.put("outcome", "code", code)
	for i, did := range calls {
		object := fmt.Sprintf("answer %d %s", i, did.plugin)
		f.put(object, "exit", fmt.Sprint(did.code))
		if did.code == 0 && did.stdout != "" {
			var v map[string]any
			if err := json.Unmarshal([]byte(did.stdout), &v); err != nil {
				f.put(object, "json", did.stdout)
			}
			f.flatten(object, "", v)
		}
	}
	return f
}
