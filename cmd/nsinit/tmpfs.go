package main

import (
	"errors"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// parseTmpfs parses `DST[:OPTS]`. The options are the kernel's; docker's defaults
// are nosuid, nodev and noexec.
func parseTmpfs(s string) (specs.Mount, error) {
	parts := splitColons(s)
	if len(parts) > 2 {
		return specs.Mount{}, errors.New(`more than two parts; write \: for a colon in a path`)
	}
	target, err := mountTarget(parts[0])
	if err != nil {
		return specs.Mount{}, err
	}
	options := []string{"nosuid", "nodev", "noexec"}
	if len(parts) == 2 {
		if options, err = mountOptions(options, parts[1], tmpfsOption); err != nil {
			return specs.Mount{}, err
		}
	}
	return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target, Options: options}, nil
}

func tmpfsOption(word string) (string, error) {
	name, value, has := strings.Cut(word, "=")
	if has {
		value, err := tmpfsParameter(name, value)
		return name + "=" + value, err
	}
	switch name {
	case "ro", "rw", "exec", "noexec", "suid", "nosuid", "nodev":
		return word, nil
	case "dev":
		return "", errors.New("a tmpfs has no devices until there are device rules")
	case "":
		return "", errors.New("empty")
	}
	return "", errTmpfsOption
}

var errTmpfsOption = errors.New("unknown; one of size=, nr_inodes=, mode=, uid=, gid=, ro, rw, [no]exec, [no]suid, nodev")

// tmpfsParameter checks a value as the kernel does, and returns it in its one form.
func tmpfsParameter(name, value string) (string, error) {
	switch name {
	case "size":
		if share, ok := strings.CutSuffix(value, "%"); ok {
			return value, checkShare(share)
		}
		fallthrough
	case "nr_inodes":
		n, err := parseSize(value)
		return strconv.FormatInt(n, 10), err
	case "mode":
		if n, err := strconv.ParseUint(value, 8, 32); err != nil || n > 0o7777 {
			return "", errors.New("want an octal mode, at most 7777")
		}
		return value, nil
	case "uid", "gid":
		if n, err := strconv.ParseUint(value, 10, 32); err != nil || n > maxID {
			return "", errors.New("want a number, at most 4294967294")
		}
		return value, nil
	}
	return "", errTmpfsOption
}

// checkShare checks a percentage of the machine's memory.
func checkShare(s string) error {
	if n, err := strconv.ParseUint(s, 10, 8); err != nil || n == 0 || n > 100 {
		return errors.New("want a share of 1% to 100%")
	}
	return nil
}
