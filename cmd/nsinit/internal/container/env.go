package container

import (
	"slices"
	"strings"
)

// MergeEnv adds entries to env; a later one replaces an earlier one of its name,
// at its place.
func MergeEnv(env []string, entries ...string) []string {
	merged := make([]string, 0, len(env)+len(entries))
	place := make(map[string]int, len(env)+len(entries))
	for _, list := range [][]string{env, entries} {
		for _, e := range list {
			name, _, _ := strings.Cut(e, "=")
			if i, ok := place[name]; ok {
				merged[i] = e
				continue
			}
			place[name] = len(merged)
			merged = append(merged, e)
		}
	}
	return merged
}

func hasEnv(env []string, name string) bool {
	return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
}

func envValue(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
