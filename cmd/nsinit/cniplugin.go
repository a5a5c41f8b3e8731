package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/netsetup/plugin"
)

// isPlugin tells whether a container runtime calls nsinit as a CNI plugin: without
// arguments, and with the command in the environment.
func (a *app) isPlugin(args []string) bool {
	command, _ := a.lookupEnv("CNI_COMMAND")
	return command != "" && len(args) == 0
}

// rootVariable has the state directory for a plugin that nsinit cni calls, which may be
// nsinit: CNI leaves no other way to pass --root on.
const rootVariable = "NSINIT_ROOT"

// servePlugin answers the call.
func (a *app) servePlugin() int {
	if a.root, _ = a.lookupEnv(rootVariable); !filepath.IsAbs(a.root) {
		a.root = container.DefaultRoot
	}
	p := plugin.Plugin{
		Root: a.root, DataDir: container.DefaultDataDir, Name: filepath.Base(os.Args[0]),
		Warn: func(line string) { fmt.Fprintln(a.stderr, line) }, Recorded: a.runtime().Objects,
	}
	env := func(name string) string {
		value, _ := a.lookupEnv(name)
		return value
	}
	if err := os.MkdirAll(p.DataDir, 0o755); err != nil {
		p.Warn(err.Error())
	}
	return p.Serve(context.Background(), env, os.Stdin, a.stdout)
}
