package creds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCloseOnExec(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	leaked := make([]*os.File, 6)
	for i := range leaked {
		f, err := os.Create(filepath.Join(dir, string(rune('a'+i))))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		leaked[i] = f
	}
	p := &plan{CloseFDs: true, Keep: []int{4, 7}, Exec: []string{"/bin/sh", "-c", "for f in /proc/$$/fd/*; do readlink $f; done; ls /proc/$$/fd"}}
	cmd := p.command(t)
	cmd.ExtraFiles = leaked // 3 to 8
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	kept := 0
	for _, f := range got {
		if strings.HasPrefix(f, dir) {
			kept++
		}
	}
	text := strings.Join(got, " ")
	if !strings.HasSuffix(text, " 0 1 2 4 7") || !strings.Contains(text, filepath.Join(dir, "b")) || !strings.Contains(text, filepath.Join(dir, "e")) || kept != 2 {
		t.Errorf("the program has %s", text)
	}
}

func TestCloseOnExecKeepsNoNonsense(t *testing.T) {
	t.Parallel()
	closed, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, f := range map[string]*os.File{"nil": nil, "closed": closed} {
		if err := CloseOnExec(f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
