package netsetup

import (
	"errors"
	"fmt"
	"strings"
)

// A regular expression of characters, ".", classes, groups, "|", "*", "+", "?", "^"
// and "$", which is what allow-lists are made of; more is refused. The library's
// package would cost every start 70 us of initialisation, for a file that most
// machines lack.

// A pattern is a part of one: match says whether it matches s from i on, up to a
// place that then takes.
type pattern interface {
	match(s []rune, i int, then func(int) bool) bool
}

type (
	alternatives []sequence
	sequence     []pattern
	character    rune
	anything     struct{}
	class        struct {
		not    bool
		ranges [][2]rune
	}
	edge   struct{ end bool }
	repeat struct {
		what pattern
		min  int
		many bool // more than once
	}
)

// in says whether p matches anywhere in s.
func (p alternatives) in(s []rune) bool {
	for i := 0; i <= len(s); i++ {
		if p.match(s, i, func(int) bool { return true }) {
			return true
		}
	}
	return false
}

func (p alternatives) match(s []rune, i int, then func(int) bool) bool {
	for _, one := range p {
		if one.match(s, i, then) {
			return true
		}
	}
	return false
}

func (p sequence) match(s []rune, i int, then func(int) bool) bool {
	if len(p) == 0 {
		return then(i)
	}
	return p[0].match(s, i, func(j int) bool { return p[1:].match(s, j, then) })
}

func (p character) match(s []rune, i int, then func(int) bool) bool {
	return i < len(s) && s[i] == rune(p) && then(i+1)
}

func (anything) match(s []rune, i int, then func(int) bool) bool {
	return i < len(s) && s[i] != '\n' && then(i+1)
}

func (p class) match(s []rune, i int, then func(int) bool) bool {
	if i >= len(s) {
		return false
	}
	for _, r := range p.ranges {
		if s[i] >= r[0] && s[i] <= r[1] {
			return !p.not && then(i+1)
		}
	}
	return p.not && then(i+1)
}

func (p edge) match(s []rune, i int, then func(int) bool) bool {
	at := 0
	if p.end {
		at = len(s)
	}
	return i == at && then(i)
}

func (p repeat) match(s []rune, i int, then func(int) bool) bool {
	if p.min == 0 && then(i) {
		return true
	}
	return p.what.match(s, i, func(j int) bool {
		if j == i { // nothing was taken: once more would be for ever
			return p.min > 0 && then(j)
		}
		if p.many {
			return repeat{what: p.what, many: true}.match(s, j, then)
		}
		return then(j)
	})
}

// A patternReader reads a pattern.
type patternReader struct {
	rest  []rune
	depth int
}

const maxPattern = 1000 // characters

// parsePattern reads one. The error is a reason without the value.
func parsePattern(text string) (alternatives, error) {
	r := patternReader{rest: []rune(text)}
	if len(r.rest) > maxPattern {
		return nil, fmt.Errorf("%d characters; at most %d", len(r.rest), maxPattern)
	}
	p, err := r.alternatives()
	if err == nil && len(r.rest) > 0 {
		err = errors.New("a ) without its (")
	}
	return p, err
}

func (r *patternReader) take(c rune) bool {
	if len(r.rest) == 0 || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

func (r *patternReader) alternatives() (alternatives, error) {
	var all alternatives
	for {
		s, err := r.sequence()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		if !r.take('|') {
			return all, nil
		}
	}
}

func (r *patternReader) sequence() (sequence, error) {
	var all sequence
	for len(r.rest) > 0 && r.rest[0] != '|' && r.rest[0] != ')' {
		p, err := r.one()
		if err != nil {
			return nil, err
		}
		switch {
		case r.take('*'):
			p = repeat{what: p, many: true}
		case r.take('+'):
			p = repeat{what: p, min: 1, many: true}
		case r.take('?'):
			p = repeat{what: p}
		}
		all = append(all, p)
	}
	return all, nil
}

const notKnown = "not understood here; characters, ., [a-z], (), |, *, +, ?, ^ and $ are"

func (r *patternReader) one() (pattern, error) {
	c := r.rest[0]
	r.rest = r.rest[1:]
	switch c {
	case '.':
		return anything{}, nil
	case '^', '$':
		return edge{end: c == '$'}, nil
	case '[':
		return r.class()
	case '(':
		return r.group()
	case '\\':
		return r.escaped()
	case '*', '+', '?', '{':
		return nil, fmt.Errorf("%q is %s", c, notKnown)
	}
	return character(c), nil
}

func (r *patternReader) group() (pattern, error) {
	if len(r.rest) > 0 && r.rest[0] == '?' {
		return nil, errors.New("(? is " + notKnown)
	}
	if r.depth++; r.depth > 50 {
		return nil, errors.New("nested more than 50 deep")
	}
	p, err := r.alternatives()
	r.depth--
	if err == nil && !r.take(')') {
		err = errors.New("a ( without its )")
	}
	return p, err
}

// escaped takes what a backslash makes ordinary; letters and digits mean more there.
func (r *patternReader) escaped() (pattern, error) {
	if len(r.rest) == 0 {
		return nil, errors.New("ends in a backslash")
	}
	c := r.rest[0]
	if !strings.ContainsRune(`.*+?()[]{}|^$\-/`, c) {
		return nil, fmt.Errorf(`\%c is %s`, c, notKnown)
	}
	r.rest = r.rest[1:]
	return character(c), nil
}

func (r *patternReader) class() (pattern, error) {
	p := class{not: r.take('^')}
	for first := true; first || !r.take(']'); first = false {
		low, err := r.classCharacter()
		if err != nil {
			return nil, err
		}
		high := low
		if len(r.rest) > 1 && r.rest[0] == '-' && r.rest[1] != ']' {
			r.rest = r.rest[1:]
			if high, err = r.classCharacter(); err != nil {
				return nil, err
			}
		}
		if high < low {
			return nil, fmt.Errorf("%c-%c: the wrong way round", low, high)
		}
		p.ranges = append(p.ranges, [2]rune{low, high})
	}
	return p, nil
}

func (r *patternReader) classCharacter() (rune, error) {
	if len(r.rest) == 0 {
		return 0, errors.New("a [ without its ]")
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	if c == '[' && len(r.rest) > 0 && r.rest[0] == ':' {
		return 0, errors.New("[: is " + notKnown)
	}
	if c != '\\' {
		return c, nil
	}
	p, err := r.escaped()
	if err != nil {
		return 0, err
	}
	ch, _ := p.(character)
	return rune(ch), nil
}
