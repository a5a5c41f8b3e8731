package main

import (
	"errors"
	"fmt"
	"strings"
)

// A sysctl is one setting.
type sysctl struct{ key, value string }

// parseSysctl parses `KEY=VALUE`. The key is made one of dots, where a slash stands
// for a dot inside a part: net.ipv4.conf.eth0/100.forwarding is the device
// eth0.100. Only what belongs to a namespace of the container may be set.
func parseSysctl(s string) (sysctl, error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return sysctl{}, errors.New("no =")
	}
	key, err := sysctlKey(key)
	if err != nil {
		return sysctl{}, err
	}
	if err := checkSysctlValue(value); err != nil {
		return sysctl{}, err
	}
	return sysctl{key, value}, nil
}

// sysctlKey checks the key and turns it into the form with dots; as for sysctl(8)
// the separator that comes first separates, and the other one stands for it.
func sysctlKey(key string) (string, error) {
	for i := range len(key) {
		if c := key[i]; !isAlnum(c) && strings.IndexByte("._-/@:", c) < 0 {
			return "", fmt.Errorf("character %q in the key", rune(c))
		}
	}
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		key = strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	for part := range strings.SplitSeq(key, ".") {
		if name := strings.ReplaceAll(part, "/", "."); name == "" || name == "." || name == ".." {
			return "", errors.New("empty part in the key")
		}
	}
	return key, checkNamespaced(key)
}

// checkNamespaced refuses what would change the host.
func checkNamespaced(key string) error {
	switch {
	case strings.HasPrefix(key, "net."), strings.HasPrefix(key, "fs.mqueue."), key == "kernel.sem",
		strings.HasPrefix(key, "kernel.msg"), strings.HasPrefix(key, "kernel.shm"):
		return nil
	case key == "kernel.hostname":
		return errors.New("use --hostname")
	}
	return errors.New("belongs to the host, not to a namespace; set it on the host, " +
		"or one of net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*")
}

// checkSysctlValue allows what values are made of: numbers, words, lists, ranges,
// addresses. Nothing in it could begin a second setting.
func checkSysctlValue(value string) error {
	if value == "" {
		return errors.New("no value")
	}
	for i := range len(value) {
		if c := value[i]; !isAlnum(c) && strings.IndexByte(" \t._-,:/", c) < 0 {
			return fmt.Errorf("character %q in the value", rune(c))
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
