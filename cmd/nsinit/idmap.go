package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxID is the largest user or group id: the next one means "no id" to the kernel.
const maxID = 1<<32 - 2

// maxIDMaps is how many lines the kernel takes (user_namespaces(7)).
const maxIDMaps = 340

// parseIDMap parses `CONTAINER:HOST[:SIZE]`; without a size it is one id.
func parseIDMap(s string) (specs.LinuxIDMapping, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return specs.LinuxIDMapping{}, errors.New("not two or three numbers")
	}
	n := [3]uint64{2: 1}
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 32)
		if err != nil || v > maxID {
			return specs.LinuxIDMapping{}, fmt.Errorf("%s: not a number from 0 to %d", quote(part), uint32(maxID))
		}
		n[i] = v
	}
	switch {
	case n[2] == 0:
		return specs.LinuxIDMapping{}, errors.New("a size of zero")
	case max(n[0], n[1])+n[2]-1 > maxID:
		return specs.LinuxIDMapping{}, fmt.Errorf("ends above %d", uint32(maxID))
	}
	return specs.LinuxIDMapping{ContainerID: uint32(n[0]), HostID: uint32(n[1]), Size: uint32(n[2])}, nil
}

// checkIDMaps finds ids that are mapped twice.
func checkIDMaps(maps []specs.LinuxIDMapping) error {
	if len(maps) > maxIDMaps {
		return fmt.Errorf("%d maps; the kernel takes %d", len(maps), maxIDMaps)
	}
	inside := func(m specs.LinuxIDMapping) uint64 { return uint64(m.ContainerID) }
	outside := func(m specs.LinuxIDMapping) uint64 { return uint64(m.HostID) }
	if a, b, ok := overlap(maps, inside); ok {
		return fmt.Errorf("%s and %s overlap in the container", idMapText(a), idMapText(b))
	}
	if a, b, ok := overlap(maps, outside); ok {
		return fmt.Errorf("%s and %s overlap on the host", idMapText(a), idMapText(b))
	}
	return nil
}

func overlap(maps []specs.LinuxIDMapping, start func(specs.LinuxIDMapping) uint64) (a, b specs.LinuxIDMapping, ok bool) {
	sorted := slices.SortedFunc(slices.Values(maps), func(a, b specs.LinuxIDMapping) int {
		return int(int64(start(a)) - int64(start(b)))
	})
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; start(a)+uint64(a.Size) > start(b) {
			return a, b, true
		}
	}
	return a, b, false
}

func idMapText(m specs.LinuxIDMapping) string {
	return fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size)
}
