package main

import (
	"errors"
	"fmt"
	"strings"
)

// maxName is the longest name of a container: it is a file name.
const maxName = 255

// maxHostname is the kernel's limit, in bytes.
const maxHostname = 64

// checkName checks a container's name, and what has its form.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("empty")
	case len(s) > maxName:
		return fmt.Errorf("%d bytes; at most %d", len(s), maxName)
	case s[0] == '.' || s[0] == '-':
		return fmt.Errorf("begins with %c", s[0])
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("_+-.", c) < 0 {
			return fmt.Errorf("character %q; letters, digits, _, +, - and . are allowed", firstRune(s[i:]))
		}
	}
	return nil
}

// checkHostname allows labels of letters, digits, - and _, separated by dots.
func checkHostname(s string) error {
	if len(s) > maxHostname {
		return fmt.Errorf("%d bytes; at most %d", len(s), maxHostname)
	}
	return checkDomain(s)
}

// checkDomain is checkHostname with the longer limit of DNS.
func checkDomain(s string) error {
	if len(s) > 253 {
		return fmt.Errorf("%d bytes; at most 253", len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return errors.New("empty part")
		case len(label) > 63:
			return fmt.Errorf("part of %d bytes; at most 63", len(label))
		case label[0] == '-':
			return errors.New("part that begins with -")
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' && c != '_' {
				return fmt.Errorf("character %q; letters, digits, -, _ and . are allowed", firstRune(label[i:]))
			}
		}
	}
	return nil
}

// checkAbsolute checks a path inside the container.
func checkAbsolute(s string) error {
	switch {
	case s == "" || s[0] != '/':
		return errors.New("not absolute; put / in front")
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("holds a NUL byte")
	}
	return nil
}

// checkCgroupParent checks a path below the unified hierarchy.
func checkCgroupParent(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	for part := range strings.SplitSeq(strings.Trim(s, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return errors.New("a part is empty, or goes up")
		}
	}
	if strings.ContainsAny(s, "\n\x00") {
		return errors.New("holds a line end or a NUL byte")
	}
	return nil
}

func firstRune(s string) rune {
	for _, r := range s {
		return r
	}
	return 0
}
