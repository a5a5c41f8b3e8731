package main

import (
	"fmt"
	"strings"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

// helpWidth is how wide help is written.
const helpWidth = 80

const tagline = "run a program in new namespaces, on a network built over netlink"

func helpVerb() verb {
	return verb{
		name: "help", form: "[COMMAND|steps]", max: 2,
		brief: "print help for a command, or the two lists of steps",
		about: "Without a word: all commands. With steps: what the host side and the init do at a start, in order; --trace shows the same names with their times.",
		examples: []example{
			{"nsinit help run", "the flags of nsinit run"},
			{"nsinit help steps", "what a start is made of"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func(args []string) (int, error) {
				switch {
				case len(args) == 0:
					return 0, a.printOverview()
				case args[0] == "steps":
					return 0, a.printSteps()
				}
				v, rest, err := findVerb(args)
				switch {
				case err != nil:
					return exitFailure, usage("%w", err)
				case len(rest) > 0:
					return exitFailure, usage("%s: one argument too many", quote(rest[0]))
				}
				return 0, a.printHelp(v)
			}
		},
	}
}

func (a *app) printOverview() error {
	var b strings.Builder
	fmt.Fprintf(&b, "nsinit: %s\n\nnsinit [flags] COMMAND ...\n\nCommands\n", tagline)
	b.WriteString(briefs(verbs()))
	b.WriteString("\n" + flagHelp(a.globalFlags(new(bool))))
	b.WriteString("\nnsinit help COMMAND says more of each.\n")
	return a.print(b.String())
}

// briefs is a line for each verb.
func briefs(list []verb) string {
	var rows [][]string
	for _, v := range list {
		rows = append(rows, []string{"  " + v.name, v.brief})
	}
	return table(rows, nil)
}

func (a *app) printHelp(v verb) error {
	groups, _ := v.setup(a)
	var b strings.Builder
	fmt.Fprintf(&b, "nsinit %s: %s\n\n%s\n\n%s\n", v.name, v.brief, v.usage(), wrap(v.about, helpWidth, ""))
	if v.sub != nil {
		b.WriteString("\nCommands\n" + briefs(v.sub()))
	}
	for _, g := range append(groups, a.globalFlags(nil)) {
		b.WriteString("\n" + flagHelp(g))
	}
	if len(v.examples) > 0 {
		b.WriteString("\nExamples\n")
	}
	for _, e := range v.examples {
		fmt.Fprintf(&b, "  %s\n%s\n", e.line, wrap(e.says, helpWidth, "      "))
	}
	return a.print(b.String())
}

func (a *app) printSteps() error {
	host, inside := container.HostSteps(), container.InitSteps()
	if a.json {
		return a.printJSON(map[string][]string{"host": host, "init": inside})
	}
	return a.print("host: " + strings.Join(host, " ") + "\ninit: " + strings.Join(inside, " ") + "\n")
}

// flagHelp is a group of flags, each with its text below it.
func flagHelp(g group) string {
	var b strings.Builder
	fmt.Fprintln(&b, g.title)
	for _, f := range g.flags {
		fmt.Fprintf(&b, "  %s\n%s\n", f.title(), wrap(f.text(), helpWidth, "      "))
	}
	return b.String()
}

// title is the flag with its short form.
func (f flag) title() string {
	if f.short != "" {
		return "-" + f.short + ", " + f.form()
	}
	return f.form()
}

// text is the flag's help, with what the table knows besides.
func (f flag) text() string {
	if f.repeat {
		return f.help + "; may be repeated"
	}
	return f.help
}

// wrap breaks paragraphs into lines of at most width characters, and indents them.
func wrap(s string, width int, indent string) string {
	var lines []string
	for i, paragraph := range strings.Split(s, "\n\n") {
		if i > 0 {
			lines = append(lines, "")
		}
		line := indent
		for word := range strings.FieldsSeq(paragraph) {
			switch {
			case line == indent:
				line += word
			case len(line)+1+len(word) > width:
				lines = append(lines, line)
				line = indent + word
			default:
				line += " " + word
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
