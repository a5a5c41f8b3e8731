package main

import (
	goflag "flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = goflag.Bool("update", false, "write docs/nsinit*.1.md anew")

// The reference pages are made of the same tables as the parser and the help.
// After a change of a flag: go test ./cmd/nsinit -run TestReference -update.
func TestReference(t *testing.T) {
	dir := filepath.Join("..", "..", "docs")
	pages := referencePages()
	for name, page := range pages {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(have), page); diff != "" {
			t.Errorf("%s is not what the flags say; run this test with -update (-have +want):\n%s", name, diff)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "nsinit*.1.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if pages[filepath.Base(f)] == "" {
			t.Errorf("%s is of no command", f)
		}
	}
}

func referencePages() map[string]string {
	a := newApp()
	pages := map[string]string{"nsinit.1.md": overviewPage(a)}
	for _, v := range allVerbs() {
		pages["nsinit-"+pageName(v)+".1.md"] = verbPage(a, v)
	}
	return pages
}

const generated = "<!-- Made of the tables in cmd/nsinit by go test ./cmd/nsinit -run TestReference -update. -->\n\n"

func overviewPage(a *app) string {
	var b strings.Builder
	b.WriteString(generated)
	fmt.Fprintf(&b, "# nsinit(1)\n\n## NAME\n\nnsinit - %s\n\n## SYNOPSIS\n\n`nsinit [flags] COMMAND ...`\n\n", tagline)
	b.WriteString("## COMMANDS\n\n")
	b.WriteString(verbTable(verbs()))
	fmt.Fprintf(&b, "\n## GLOBAL FLAGS\n\nThey may stand before the command and after it.\n\n%s", optionList(a.globalFlags(new(bool))))
	b.WriteString("## EXIT STATUS\n\n" + exitTable + "\n" + errorsText)
	b.WriteString("## FILES\n\n" + filesTable)
	return b.String()
}

func pageName(v verb) string { return strings.ReplaceAll(v.name, " ", "-") }

func verbTable(list []verb) string {
	var b strings.Builder
	b.WriteString("| command | |\n| --- | --- |\n")
	for _, v := range list {
		fmt.Fprintf(&b, "| [%s](nsinit-%s.1.md) | %s |\n", v.name, pageName(v), v.brief)
	}
	return b.String()
}

func verbPage(a *app, v verb) string {
	groups, _ := v.setup(a)
	var b strings.Builder
	b.WriteString(generated)
	fmt.Fprintf(&b, "# nsinit-%s(1)\n\n## NAME\n\nnsinit %s - %s\n\n", pageName(v), v.name, v.brief)
	fmt.Fprintf(&b, "## SYNOPSIS\n\n`%s`\n\n## DESCRIPTION\n\n%s\n\n", v.usage(), v.about)
	if v.sub != nil {
		b.WriteString("## COMMANDS\n\n" + verbTable(v.sub()) + "\n")
	}
	if len(groups) > 0 {
		b.WriteString("## OPTIONS\n\n")
	}
	for _, g := range groups {
		if len(groups) > 1 {
			fmt.Fprintf(&b, "### %s\n\n", g.title)
		}
		b.WriteString(optionList(g))
	}
	b.WriteString("The global flags are in [nsinit(1)](nsinit.1.md).\n\n")
	if v.program {
		b.WriteString("## EXIT STATUS\n\n" + exitTable + "\n")
	}
	if len(v.examples) > 0 {
		b.WriteString("## EXAMPLES\n\n")
	}
	for _, e := range v.examples {
		fmt.Fprintf(&b, "%s:\n\n    %s\n\n", upper(e.says), e.line)
	}
	b.WriteString("## SEE ALSO\n\n[nsinit(1)](nsinit.1.md)\n")
	return b.String()
}

func optionList(g group) string {
	var b strings.Builder
	for _, f := range g.flags {
		fmt.Fprintf(&b, "- `%s`: %s\n", f.title(), escapeMarkdown(f.text()))
	}
	return b.String() + "\n"
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func escapeMarkdown(s string) string {
	return strings.NewReplacer("*", `\*`, "|", `\|`, "[", `\[`, "_", `\_`).Replace(s)
}

const exitTable = `| code | when |
| --- | --- |
| the program's own | it ran and ended |
| 128 + N | signal N ended it |
| 125 | nsinit failed: nothing is left of the container |
| 126 | the program was found but can't be executed |
| 127 | the program was not found |
`

const errorsText = `An error is one line on stderr, ` + "`nsinit: WHAT: OBJECT: CAUSE`" + `; with ` + "`--json`" + ` it is one JSON object with
the keys ` + "`error` and `exitCode`" + `, provided that ` + "`--json`" + ` stands before the fault.

`

const filesTable = `| path | what |
| --- | --- |
| /run/nsinit | the records of containers; gone after a reboot, as the containers are; another with ` + "`--root`" + ` |
| /var/lib/nsinit | what outlives a reboot: the subnets of networks |
| /etc/cni/net.d | network configuration lists; another with ` + "`run --network-config-dir`" + ` |
| /var/lib/cni | leases, and the results of CNI plugins that are run, where CNI's own tools have theirs |
| /run/netns | names of network namespaces for ` + "`ip netns`" + `, with ` + "`run --netns-name`" + ` |
`
