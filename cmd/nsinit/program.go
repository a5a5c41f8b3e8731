package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsinit/nsinit/creds"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

// A program is what run and exec ask in the same words: how a program is started.
type program struct {
	env         []string
	envFiles    []string // entries of all files: they stand before those of --env
	user        string
	workdir     string
	tty         bool
	interactive bool
	detach      bool
	pidFile     string
	capAdd      []string
	capDrop     []string
	privileged  bool
}

// flags are those that say how the program is started.
func (p *program) flags(caller lookup) []flag {
	return []flag{
		{
			name: "env", short: "e", arg: "NAME[=VALUE]", repeat: true, set: p.addEnv(caller),
			help: "environment variable; without a value, the caller's",
		},
		{
			name: "env-file", arg: "FILE", repeat: true, set: p.addEnvFile(caller),
			help: "file of NAME[=VALUE] lines; --env goes before it",
		},
		{
			name: "user", short: "u", arg: "NAME|UID[:GROUP|GID]", set: text(&p.user, named(creds.ParseUser)),
			help: "who the program runs as, looked up in the container's passwd and group",
		},
		{
			name: "workdir", short: "w", arg: "DIR", set: text(&p.workdir, checkAbsolute),
			help: "working directory inside",
		},
		{
			name: "tty", short: "t", set: toggle(&p.tty),
			help: "give the program a terminal of its own",
		},
		{
			name: "interactive", short: "i", set: toggle(&p.interactive),
			help: "let the program read stdin",
		},
		{
			name: "detach", short: "d", set: toggle(&p.detach),
			help: "leave the program running",
		},
		{
			name: "pid-file", arg: "FILE", set: p.setPidFile,
			help: "write the program's process id, as the host counts, to FILE",
		},
	}
}

// securityFlags are those that say what the program may do.
func (p *program) securityFlags() []flag {
	return []flag{
		{
			name: "cap-add", arg: "CAP[,CAP...]", repeat: true, set: addCaps(&p.capAdd, true),
			help: "add a capability, or ALL",
		},
		{
			name: "cap-drop", arg: "CAP[,CAP...]", repeat: true, set: addCaps(&p.capDrop, false),
			help: "take a capability away, or ALL",
		},
		{
			name: "privileged", set: toggle(&p.privileged),
			help: "all capabilities; /proc and /sys writable and unmasked",
		},
	}
}

func (p *program) addEnv(caller lookup) func(string) error {
	return func(s string) error {
		entry, ok, err := parseEnv(s, caller)
		if err == nil && ok {
			p.env = append(p.env, entry)
		}
		return err
	}
}

func (p *program) addEnvFile(caller lookup) func(string) error {
	return func(path string) error {
		entries, err := readEnvFile(path, caller)
		p.envFiles = append(p.envFiles, entries...)
		return err
	}
}

// environment is what the flags ask, in order.
func (p *program) environment() []string { return container.MergeEnv(p.envFiles, p.env...) }

// setPidFile looks whether the file could be made before anything is started.
func (p *program) setPidFile(s string) error {
	if err := absolute(&p.pidFile)(s); err != nil {
		return err
	}
	dir := filepath.Dir(p.pidFile)
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w; make it first", quote(dir), cause(err))
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no directory", quote(dir))
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("directory %s: %w", quote(dir), err)
	}
	return nil
}

// addCaps checks each name by itself, so that an error names its flag.
func addCaps(p *[]string, add bool) func(string) error {
	return func(s string) error {
		for name := range strings.SplitSeq(s, ",") {
			if name == "" {
				return errors.New("empty name")
			}
			var err error
			if add {
				_, err = creds.Capabilities([]string{name}, nil, false)
			} else {
				_, err = creds.Capabilities(nil, []string{name}, false)
			}
			if err != nil {
				return &namedError{err}
			}
			*p = append(*p, name)
		}
		return nil
	}
}
