package main

import (
	"fmt"
	"strings"
)

// A verb is one command. Help, reference pages and completion are made of it, so
// that they can't say anything else than what is parsed.
type verb struct {
	name     string
	form     string // what follows the name
	brief    string // half a line
	about    string // paragraphs, separated by empty lines
	examples []example
	min, max int           // arguments; max < 0: any number
	program  bool          // the first argument is a program: what follows it isn't ours
	sub      func() []verb // of a family, whose members are named by two words; it does nothing by itself

	// setup returns the flags, bound to fresh values, and what to do with them.
	setup func(*app) ([]group, action)
}

// An action does a verb's work and returns the exit code.
type action func(args []string) (int, error)

// An example is a line to type and what it is good for.
type example struct{ line, says string }

// verbs are all commands, in the order of the help.
func verbs() []verb {
	return []verb{
		runVerb(), execVerb(), listVerb(), stateVerb(), killVerb(),
		deleteVerb(), gcVerb(), networkVerb(), cniVerb(), doctorVerb(), versionVerb(), completionVerb(), helpVerb(),
	}
}

// allVerbs are the verbs with the members of families behind each.
func allVerbs() []verb {
	var all []verb
	for _, v := range verbs() {
		all = append(all, v)
		if v.sub != nil {
			all = append(all, v.sub()...)
		}
	}
	return all
}

func verbNames() []string { return namesOf(verbs()) }

// namesOf are the last words of names.
func namesOf(list []verb) []string {
	var names []string
	for _, v := range list {
		names = append(names, v.name[strings.LastIndexByte(v.name, ' ')+1:])
	}
	return names
}

// family makes the verb that stands for others.
func family(name, brief, about string, sub func() []verb) verb {
	return verb{
		name: name, brief: brief, about: about, sub: sub,
		setup: func(*app) ([]group, action) {
			return nil, func([]string) (int, error) {
				return exitFailure, usage("no command given; one of %s; see nsinit help %s", strings.Join(namesOf(sub()), ", "), name)
			}
		},
	}
}

// findVerb finds the verb that args begin with, and returns what stands behind it.
func findVerb(args []string) (verb, []string, error) {
	v, err := oneOf(verbs(), args[0], "")
	args = args[1:]
	if err != nil || v.sub == nil || len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return v, args, err
	}
	v, err = oneOf(v.sub(), args[0], v.name+" ")
	return v, args[1:], err
}

func oneOf(list []verb, name, family string) (verb, error) {
	for _, v := range list {
		if v.name == family+name {
			return v, nil
		}
	}
	remedy := strings.TrimSpace("see nsinit help " + family)
	if near := nearest(name, namesOf(list)); near != "" {
		remedy = "did you mean " + family + near + "?"
	}
	return verb{}, fmt.Errorf("%s%s: unknown command; %s", strings.ReplaceAll(family, " ", ": "), quote(name), remedy)
}

// checkArgs counts the arguments.
func (v verb) checkArgs(args []string) error {
	switch {
	case len(args) < v.min:
		words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(v.form, "[flags]"), " [--]"))
		return usage("%s missing; form: %s", words[len(args)], v.usage())
	case v.max >= 0 && len(args) > v.max:
		return usage("%s: one argument too many; form: %s", quote(args[v.max]), v.usage())
	}
	return nil
}

// usage is the verb's form with its name.
func (v verb) usage() string {
	form := v.form
	if v.sub != nil {
		form = strings.Join(namesOf(v.sub()), "|") + " ..."
	}
	return strings.TrimSpace("nsinit " + v.name + " " + form)
}
