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
	min, max int  // arguments; max < 0: any number
	program  bool // the first argument is a program: what follows it isn't ours

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
		deleteVerb(), gcVerb(), versionVerb(), completionVerb(), helpVerb(),
	}
}

func verbNames() []string {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	return names
}

func findVerb(name string) (verb, error) {
	for _, v := range verbs() {
		if v.name == name {
			return v, nil
		}
	}
	remedy := "see nsinit help"
	if near := nearest(name, verbNames()); near != "" {
		remedy = "did you mean " + near + "?"
	}
	return verb{}, fmt.Errorf("%s: unknown command; %s", quote(name), remedy)
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
func (v verb) usage() string { return strings.TrimSpace("nsinit " + v.name + " " + v.form) }
