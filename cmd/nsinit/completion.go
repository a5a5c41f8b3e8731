package main

import (
	"fmt"
	"slices"
	"strings"
)

func completionVerb() verb {
	return verb{
		name: "completion", form: "bash|zsh", min: 1, max: 1,
		brief: "print a script that completes commands and flags",
		about: "The script completes commands, flags, the ids of containers where a command takes one, and files elsewhere.",
		examples: []example{
			{"source <(nsinit completion bash)", "in ~/.bashrc"},
			{"source <(nsinit completion zsh)", "in ~/.zshrc, after compinit"},
		},
		setup: func(a *app) ([]group, action) {
			return nil, func(args []string) (int, error) {
				switch args[0] {
				case "bash":
					return 0, a.print(a.completion())
				case "zsh":
					return 0, a.print("autoload -U +X bashcompinit && bashcompinit\n" + a.completion())
				}
				return exitFailure, usage("%s: unknown shell; bash or zsh", quote(args[0]))
			}
		},
	}
}

// completion is a bash script made of the verbs' tables.
func (a *app) completion() string {
	var b strings.Builder
	b.WriteString("# bash completion of nsinit, made by nsinit completion bash\n_nsinit() {\n" +
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} verb='' i\n" +
		"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n" +
		"\t\t[[ ${COMP_WORDS[i]} != -* ]] && verb+=${verb:+ }${COMP_WORDS[i]}\n" +
		"\tdone\n\tlocal words=''\n\tcase $verb in\n")
	fmt.Fprintf(&b, "\t'') words='%s' ;;\n", strings.Join(append(verbNames(), flagNames(a.globalFlags(new(bool)))...), " "))
	for _, v := range slices.Backward(allVerbs()) { // members before their family
		fmt.Fprintf(&b, "\t'%[1]s' | '%[1]s '*) words='%s'%s ;;\n", v.name, strings.Join(a.completions(v), " "), idWords(v))
	}
	b.WriteString("\tesac\n\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\n" +
		"complete -o default -F _nsinit nsinit\n")
	return b.String()
}

// completions are the words that can follow a verb, without ids.
func (a *app) completions(v verb) []string {
	groups, _ := v.setup(a)
	var words []string
	for _, g := range append(groups, a.globalFlags(nil)) {
		words = append(words, flagNames(g)...)
	}
	if v.sub != nil {
		words = append(words, namesOf(v.sub())...)
	}
	if v.name == "help" {
		words = append(words, append(verbNames(), "steps")...)
	}
	return words
}

// idWords adds the ids of containers to the words of a verb that takes one.
func idWords(v verb) string {
	if !strings.Contains(v.form, "ID") {
		return ""
	}
	return `" $(nsinit list --quiet 2>/dev/null)"`
}

func flagNames(g group) []string {
	names := make([]string, 0, len(g.flags))
	for _, f := range g.flags {
		names = append(names, "--"+f.name)
	}
	return names
}
