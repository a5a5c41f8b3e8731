package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
	"github.com/nsinit/nsinit/creds"
	rootfs "github.com/nsinit/nsinit/fs"
)

// The documents say what the code does, or a test here says that they don't.

const tree = "../.."

// section returns the part of a document below a heading, up to the next one of any level.
func section(t *testing.T, file, heading string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tree, file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s: no heading %q", file, heading)
	}
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// rows returns the cells of a section's table, without its head and without backquotes.
func rows(t *testing.T, file, heading string) (table [][]string) {
	t.Helper()
	for line := range strings.Lines(section(t, file, heading)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(table) > 0 {
				break
			}
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.ReplaceAll(strings.TrimSpace(cell), "`", ""))
		}
		table = append(table, cells)
	}
	if len(table) < 3 {
		t.Fatalf("%s: %s: no table", file, heading)
	}
	return table[2:]
}

func column(table [][]string, i int) (column []string) {
	for _, row := range table {
		column = append(column, row[i])
	}
	return column
}

func wantSame(t *testing.T, what string, document, code []string) {
	t.Helper()
	if !slices.Equal(document, code) {
		t.Errorf("%s:\nthe document has %s\nthe code has     %s", what, strings.Join(document, " "), strings.Join(code, " "))
	}
}

func TestArchitectureSteps(t *testing.T) {
	t.Parallel()
	for heading, code := range map[string][]string{
		"## Host steps": container.HostSteps(), "## Init steps": container.InitSteps(), "## Exec steps": container.ExecSteps(),
	} {
		wantSame(t, heading, column(rows(t, "ARCHITECTURE.md", heading), 0), code)
	}
}

// TestArchitectureFrames compares the table with the constants of type Type.
func TestArchitectureFrames(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(tree, "cmd/nsinit/internal/wire/conn.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "const (\n\tGo Type = iota + 1\n")
	list, _, _ := strings.Cut(rest, ")")
	wantSame(t, "frames", column(rows(t, "ARCHITECTURE.md", "## Sync pipe"), 0), append([]string{"Go"}, strings.Fields(list)...))
}

const module = "github.com/nsinit/nsinit/"

func TestArchitectureImports(t *testing.T) {
	t.Parallel()
	var code []string
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		switch {
		case name == "hack" || name == "integration" || name == "build" || name != "." && d.Name()[0] == '.' || d.Name() == "testdata":
			return filepath.SkipDir
		}
		if imports, ok := importsOf(t, path); ok {
			code = append(code, name+": "+imports)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var document []string
	for _, row := range rows(t, "ARCHITECTURE.md", "## Who imports whom") {
		document = append(document, row[0]+": "+row[1])
	}
	slices.Sort(code)
	if slices.Sort(document); !slices.Equal(document, code) {
		t.Errorf("the document has\n%s\nthe code has\n%s", strings.Join(document, "\n"), strings.Join(code, "\n"))
	}
}

// importsOf returns what of ours a package imports outside of its tests; ok is false where there is none.
func importsOf(t *testing.T, dir string) (imports string, ok bool) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	var list []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		ok = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			if path, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module); ours {
				list = append(list, path)
			}
		}
	}
	if slices.Sort(list); len(list) == 0 {
		return "-", ok
	}
	return strings.Join(slices.Compact(list), ", "), ok
}

func TestDefaultContainerDocument(t *testing.T) {
	t.Parallel()
	const file = "docs/default-container.md"
	spec := container.Default([]string{"true"})
	wantSame(t, "capabilities", column(rows(t, file, "## Capabilities"), 0), creds.DefaultCapabilities())
	wantSame(t, "masked paths", column(rows(t, file, "## Masked paths"), 0), rootfs.DefaultMaskedPaths())
	wantSame(t, "read-only paths", column(rows(t, file, "## Read-only paths"), 0), rootfs.DefaultReadonlyPaths())
	wantSame(t, "Default's masked paths", spec.OCI.Linux.MaskedPaths, rootfs.DefaultMaskedPaths())
	wantSame(t, "Default's read-only paths", spec.OCI.Linux.ReadonlyPaths, rootfs.DefaultReadonlyPaths())
	var sysctls, environment, limits []string
	for _, row := range rows(t, file, "## Sysctls") {
		sysctls = append(sysctls, row[0]+"="+row[1])
	}
	for _, row := range rows(t, file, "## Environment") {
		if row[2] == "always" {
			environment = append(environment, row[0]+"="+row[1])
		}
	}
	for _, row := range rows(t, file, "## Limits") {
		limits = append(limits, row[0])
	}
	var have []string
	for key, value := range spec.OCI.Linux.Sysctl {
		have = append(have, key+"="+value)
	}
	wantSame(t, "sysctls", sysctls, have)
	wantSame(t, "environment", environment, spec.OCI.Process.Env)
	have = nil
	for _, l := range spec.OCI.Process.Rlimits {
		have = append(have, l.Type)
	}
	wantSame(t, "limits", limits, have)
	if text := section(t, file, "## Process"); !strings.Contains(text, "022") || *spec.OCI.Process.User.Umask != 0o022 || !spec.OCI.Process.NoNewPrivileges {
		t.Errorf("umask or no_new_privs: %s", text)
	}
}

// TestLinks follows the documents' links to files of the tree.
func TestLinks(t *testing.T) {
	t.Parallel()
	pages, _ := filepath.Glob(filepath.Join(tree, "*.md"))
	more, _ := filepath.Glob(filepath.Join(tree, "docs", "*.md"))
	if len(pages) == 0 || len(more) == 0 {
		t.Fatal("no documents")
	}
	for _, page := range append(pages, more...) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(b), "](") {
			target, _, closed := strings.Cut(part, ")")
			target, _, _ = strings.Cut(target, "#")
			if i == 0 || !closed || target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target)); err != nil {
				t.Errorf("%s: link to %s: %v", page, target, err)
			}
		}
	}
}
