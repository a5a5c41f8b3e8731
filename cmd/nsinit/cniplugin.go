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

// servePlugin answers the call.
func (a *app) servePlugin() int {
	p := plugin.Plugin{
		Root: container.DefaultRoot, DataDir: container.DefaultDataDir, Name: filepath.Base(os.Args[0]),
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
