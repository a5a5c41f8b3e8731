package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"
)

// A flag is one line of a verb's table.
type flag struct {
	name     string
	short    string // one letter; "" = none
	alias    string // another name that is understood; "" = none
	arg      string // the value's form; "" = a switch
	optional string // the value that the bare flag stands for; "" = a value must follow
	repeat   bool   // may be given more than once
	help     string
	set      func(value string) error
}

// A group is a heading with its flags.
type group struct {
	title string
	flags []flag
}

// form is how the flag is written.
func (f flag) form() string {
	switch {
	case f.arg == "":
		return "--" + f.name
	case f.optional != "":
		return "--" + f.name + "[=" + f.arg + "]"
	}
	return "--" + f.name + " " + f.arg
}

// toggle sets a switch.
func toggle(p *bool) func(string) error {
	return func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("neither true nor false")
		}
		*p = b
		return nil
	}
}

// text keeps a value that check, which may be nil, finds nothing wrong with.
func text(p *string, check func(string) error) func(string) error {
	return func(s string) error {
		if check != nil {
			if err := check(s); err != nil {
				return err
			}
		}
		*p = s
		return nil
	}
}

// appendTo parses a value and keeps it with those before it.
func appendTo[T any](p *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		if err != nil {
			return err
		}
		*p = append(*p, v)
		return nil
	}
}

// absolute keeps a host path, made absolute.
func absolute(p *string) func(string) error {
	return func(s string) error {
		if s == "" {
			return errors.New("empty")
		}
		path, err := filepath.Abs(s)
		if err != nil {
			return err
		}
		*p = path
		return nil
	}
}

// A namedError says by itself which value is wrong, and what would be right.
type namedError struct{ error }

// named marks the errors of a check that says all by itself.
func named(check func(string) error) func(string) error {
	return func(s string) error {
		if err := check(s); err != nil {
			return &namedError{err}
		}
		return nil
	}
}

// globalFlags hold for every verb, and are understood before it and after it.
// version is nil after it.
func (a *app) globalFlags(version *bool) group {
	g := group{title: "Global flags", flags: []flag{
		{name: "root", arg: "DIR", help: "state directory (default /run/nsinit)", set: absolute(&a.root)},
		{name: "json", help: "print JSON, errors too", set: toggle(&a.json)},
		{name: "trace", help: "print each step of host and init with its time on stderr", set: toggle(&a.trace)},
		{name: "help", short: "h", help: "print help", set: toggle(&a.help)},
	}}
	if version != nil {
		g.flags = append(g.flags, flag{name: "version", help: "as the command version", set: toggle(version)})
	}
	return g
}

// A flagValue is what pflag sees of a flag.
type flagValue struct {
	flag  flag
	given string // the value that was given before
	count int
}

func (v *flagValue) String() string { return v.given }

func (v *flagValue) Type() string {
	if v.flag.arg == "" {
		return "bool"
	}
	return v.flag.arg
}

func (v *flagValue) Set(s string) error {
	if v.count > 0 && !v.flag.repeat && s != v.given {
		return fmt.Errorf("given twice, before as %s; give it once", quote(v.given))
	}
	if err := v.flag.set(s); err != nil {
		return err
	}
	v.given = s
	v.count++
	return nil
}

// A flagSet parses the flags of one verb.
type flagSet struct {
	pflag *pflag.FlagSet
	flags []flag
}

// newFlagSet builds a set; mixed allows flags after the first argument. It is
// built on use, for one verb only: a start pays for every flag that is made.
func newFlagSet(name string, mixed bool, groups []group) *flagSet {
	set := &flagSet{pflag: pflag.NewFlagSet(name, pflag.ContinueOnError)}
	set.pflag.SetInterspersed(mixed)
	for _, g := range groups {
		for _, f := range g.flags {
			set.add(f)
		}
	}
	return set
}

func (set *flagSet) add(f flag) {
	set.flags = append(set.flags, f)
	value := &flagValue{flag: f}
	bare := f.optional
	if f.arg == "" {
		bare = "true"
	}
	set.pflag.AddFlag(&pflag.Flag{Name: f.name, Shorthand: f.short, Value: value, NoOptDefVal: bare})
	if f.alias != "" {
		set.pflag.AddFlag(&pflag.Flag{Name: f.alias, Value: value, NoOptDefVal: bare})
	}
}

// args are the arguments after the flags.
func (set *flagSet) args() []string { return set.pflag.Args() }

// parse sets the flags; its error names the flag, the value and the right form.
func (set *flagSet) parse(args []string) error {
	err := set.pflag.Parse(args)
	if err == nil {
		return nil
	}
	return &usageError{set.explain(err)}
}

// explain turns pflag's errors into ours.
func (set *flagSet) explain(err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
		syntax  *pflag.InvalidSyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		return set.unknown(unknown)
	case errors.As(err, &missing):
		f := set.find(missing.GetFlag().Name)
		return fmt.Errorf("--%s: value missing; form: %s", f.name, f.form())
	case errors.As(err, &invalid):
		f := set.find(invalid.GetFlag().Name)
		if named, ok := errors.AsType[*namedError](invalid.Unwrap()); ok {
			return fmt.Errorf("--%s: %w", f.name, named.error)
		}
		return fmt.Errorf("--%s: %s: %w; form: %s", f.name, quote(invalid.GetValue()), invalid.Unwrap(), f.form())
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: no flag; a flag is -X or --NAME", quote(syntax.GetSpecifiedFlag()))
	}
	return err
}

// unknown names the flag that is nearest to one that doesn't exist.
func (set *flagSet) unknown(e *pflag.NotExistError) error {
	if e.GetSpecifiedShortnames() != "" {
		return fmt.Errorf("%s: unknown flag in %s; see --help", bare("-"+e.GetSpecifiedName()), bare("-"+e.GetSpecifiedShortnames()))
	}
	var names []string
	for _, f := range set.flags {
		names = append(names, f.name)
	}
	remedy := "see --help"
	if near := nearest(e.GetSpecifiedName(), names); near != "" {
		remedy = "did you mean --" + near + "?"
	}
	return fmt.Errorf("%s: unknown flag; %s", bare("--"+e.GetSpecifiedName()), remedy)
}

// find returns the flag with that name or alias.
func (set *flagSet) find(name string) flag {
	for _, f := range set.flags {
		if f.name == name || f.alias == name {
			return f
		}
	}
	return flag{name: name}
}
