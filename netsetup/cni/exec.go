package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultDir is where plugins lie unless somebody says otherwise.
const DefaultDir = "/opt/cni/bin"

// Find returns the program of a plugin type in the first of dirs that has it. What it
// can't find matches fs.ErrNotExist.
func Find(kind string, dirs []string) (string, error) {
	if kind == "" || kind == "." || kind == ".." || strings.ContainsRune(kind, '/') {
		return "", fmt.Errorf("plugin %.64q: no plugin's name", kind)
	}
	var broken error
	for _, dir := range dirs {
		path := filepath.Join(dir, kind)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
			continue
		case err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && filepath.IsAbs(path):
			return path, nil
		case err == nil:
			err = fmt.Errorf("plugin %s: %s: no program by an absolute path", kind, path)
		}
		broken = errors.Join(broken, err)
	}
	if broken != nil {
		return "", broken
	}
	return "", fmt.Errorf("plugin %.64q: %w in %s; install it there, or name its directory with --plugin-dir",
		kind, fs.ErrNotExist, strings.Join(dirs, ", "))
}

// An Invocation is one call of a plugin (SPEC, section 2).
type Invocation struct {
	Command     string // ADD, CHECK, DEL, GC, STATUS, VERSION
	ContainerID string
	NetNS       string // a path; "" = gone
	IfName      string
	Args        string   // CNI_ARGS
	Dirs        []string // CNI_PATH
	Env         []string // further NAME=value
	Config      []byte   // stdin
}

// Run calls the program at path and returns what it says on stdout. What it says on
// stderr while it succeeds goes to warn, a line each. Its failure is an *Error.
func (i Invocation) Run(ctx context.Context, path string, warn func(string)) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Dir = i.environ(), "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(i.Config), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, pluginError(i.Command, err, stdout.Bytes(), stderr.Bytes())
	}
	for line := range strings.Lines(stderr.String()) {
		if line = strings.TrimSpace(line); line != "" && warn != nil {
			warn(filepath.Base(path) + ": " + line)
		}
	}
	return stdout.Bytes(), nil
}

// environ is ours, for a plugin may need PATH or a proxy, without what we were called by.
func (i Invocation) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "CNI_") })
	return append(append(env, i.Env...),
		"CNI_COMMAND="+i.Command, "CNI_CONTAINERID="+i.ContainerID, "CNI_NETNS="+i.NetNS, "CNI_IFNAME="+i.IfName,
		"CNI_ARGS="+i.Args, "CNI_PATH="+strings.Join(i.Dirs, string(os.PathListSeparator)))
}

// pluginError is what a plugin that failed says: an error as the specification has it,
// or else whatever it printed. Which plugin it was the caller says.
func pluginError(command string, err error, stdout, stderr []byte) error {
	var said Error
	if json.Unmarshal(stdout, &said) == nil && (said.Msg != "" || said.Code != 0) {
		said.Msg = oneLine(command + ": " + said.Msg)
		said.Details = oneLine(said.Details)
		return &said
	}
	text := oneLine(string(append(bytes.TrimSpace(stderr), stdout...)))
	if text == "" {
		text = "says nothing"
	}
	const longest = 400
	if len(text) > longest {
		text = text[:longest] + "..."
	}
	if _, ended := errors.AsType[*exec.ExitError](err); !ended { // it didn't even start
		return fmt.Errorf("%s: %w", command, err)
	}
	return Errorf(CodeInternal, "%s: %v: %s", command, err, text)
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// CheckContainerID says why id is none for a plugin; nil if it is one. It has the
// specification's characters: it becomes part of paths.
func CheckContainerID(id string) error {
	for i, c := range []byte(id) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return fmt.Errorf("character %q; a letter or digit, and then letters, digits, \"_\", \".\", \"-\"", rune(c))
		}
	}
	if id == "" {
		return errors.New("empty")
	}
	if len(id) > 200 {
		return fmt.Errorf("%d bytes; at most 200", len(id))
	}
	return nil
}
