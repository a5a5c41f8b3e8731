package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// parseVolume parses `SRC:DST[:OPTS]`. A colon in a path is written `\:`, as for
// podman. A relative source, which begins with a dot, is made absolute.
func parseVolume(s string) (specs.Mount, error) {
	parts := splitColons(s)
	if len(parts) < 2 || len(parts) > 3 {
		return specs.Mount{}, fmt.Errorf(`%d parts; write \: for a colon in a path`, len(parts))
	}
	source, err := volumeSource(parts[0])
	if err != nil {
		return specs.Mount{}, err
	}
	target, err := mountTarget(parts[1])
	if err != nil {
		return specs.Mount{}, err
	}
	options := []string{"rbind", "rprivate", "nodev"}
	if len(parts) == 3 {
		if options, err = mountOptions(options, parts[2], volumeOption); err != nil {
			return specs.Mount{}, err
		}
	}
	return specs.Mount{Type: "bind", Source: source, Destination: target, Options: options}, nil
}

// checkVolume looks whether a volume's source is there: one that is missing is
// never made in silence.
func checkVolume(m specs.Mount) error {
	if _, err := os.Stat(m.Source); err != nil {
		return fmt.Errorf("%s: %w; make it first", quote(m.Source), cause(err))
	}
	return nil
}

// splitColons splits at colons but not at `\:`.
func splitColons(s string) []string {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			b.WriteByte(':')
			i++
		case s[i] == ':':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(parts, b.String())
}

func volumeSource(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("no source")
	case strings.IndexByte(s, 0) >= 0:
		return "", errors.New("the source holds a NUL byte")
	case filepath.IsAbs(s):
		return filepath.Clean(s), nil
	case s[0] == '.':
		return filepath.Abs(s)
	}
	return "", fmt.Errorf("the source %s is no path, and there are no named volumes; write ./%s", quote(s), bare(s))
}

// mountTarget checks a path inside the container and cleans it.
func mountTarget(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("no path inside the container")
	case strings.IndexByte(s, 0) >= 0:
		return "", errors.New("the path inside holds a NUL byte")
	case s[0] != '/':
		return "", fmt.Errorf("the path inside, %s, isn't absolute; put / in front", quote(s))
	}
	if s = path.Clean(s); s == "/" {
		return "", errors.New("the path inside is the root itself; use --rootfs")
	}
	return s, nil
}

// mountOptions adds the comma-separated words of s to options. A word takes the
// place of the default that it contradicts; two words of s that contradict each
// other are an error. one checks a word and returns it in its one form.
func mountOptions(options []string, s string, one func(string) (string, error)) ([]string, error) {
	var words []string
	for given := range strings.SplitSeq(s, ",") {
		word, err := one(given)
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", quote(given), err)
		}
		for _, w := range words {
			if w != word && optionKind(w) == optionKind(word) {
				return nil, fmt.Errorf("options %s and %s contradict each other", quote(w), quote(word))
			}
		}
		words = append(words, word)
	}
	var kept []string
	for _, o := range options {
		if !replaced(o, words) {
			kept = append(kept, o)
		}
	}
	return append(kept, words...), nil
}

func replaced(option string, words []string) bool {
	for _, w := range words {
		if optionKind(w) == optionKind(option) {
			return true
		}
	}
	return false
}

// optionKind is what an option decides: of each kind only one can hold.
func optionKind(option string) string {
	name, _, _ := strings.Cut(option, "=")
	switch name {
	case "ro", "rw":
		return "write"
	case "bind", "rbind":
		return "bind"
	case "private", "rprivate", "slave", "rslave", "shared", "rshared":
		return "propagation"
	case "relatime", "noatime", "strictatime":
		return "atime"
	}
	return strings.TrimPrefix(name, "no") // exec and noexec, suid and nosuid, dev and nodev
}

func volumeOption(word string) (string, error) {
	switch word {
	case "ro", "rw", "bind", "rbind", "exec", "noexec", "suid", "nosuid", "nodev",
		"private", "rprivate", "slave", "rslave", "shared", "rshared",
		"relatime", "noatime", "nodiratime", "strictatime":
		return word, nil
	case "dev":
		return "", errors.New("volumes have no devices until there are device rules")
	case "z", "Z":
		return "", errors.New("nothing is relabelled; label the source with chcon")
	case "":
		return "", errors.New("empty")
	}
	return "", errors.New("unknown; one of ro, rw, bind, rbind, [no]exec, [no]suid, nodev, " +
		"[r]private, [r]slave, [r]shared, relatime, noatime, nodiratime, strictatime")
}
