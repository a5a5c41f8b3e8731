package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// version is set by a release build: -ldflags "-X main.version=v1.2.3".
var version string

// lowestKernel is the oldest kernel that nsinit is tested on.
const lowestKernel = "6.1"

// cniVersion is the newest CNI specification that is spoken.
const cniVersion = "1.1.0"

// versionInfo is what `nsinit version` prints.
type versionInfo struct {
	Version      string `json:"version"`
	Commit       string `json:"commit,omitempty"`
	Modified     bool   `json:"modified,omitempty"` // built from files that were changed after the commit
	Go           string `json:"go"`
	Platform     string `json:"platform"`
	Kernel       string `json:"kernel"`
	LowestKernel string `json:"lowestKernel"`
	OCIVersion   string `json:"ociVersion"`
	CNIVersion   string `json:"cniVersion"`
}

func versionVerb() verb {
	return verb{
		name:     "version",
		brief:    "print the version of nsinit, and of the kernel",
		about:    "Prints the version and commit of nsinit, the kernel and the lowest one that is supported, and the versions of the specifications.",
		examples: []example{{"nsinit version --json", "for a bug report"}},
		setup: func(a *app) ([]group, action) {
			return nil, func([]string) (int, error) {
				v := readVersion()
				if a.json {
					return 0, a.printJSON(v)
				}
				return 0, a.print(v.String())
			}
		},
	}
}

func readVersion() versionInfo {
	v := versionInfo{
		Version:      version,
		Go:           runtime.Version(),
		Platform:     runtime.GOOS + "/" + runtime.GOARCH,
		Kernel:       kernelRelease(),
		LowestKernel: lowestKernel,
		OCIVersion:   specs.Version,
		CNIVersion:   cniVersion,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (v versionInfo) String() string {
	name := v.Version
	if name == "" {
		name = "(devel)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "nsinit %s", name)
	if v.Commit != "" {
		fmt.Fprintf(&b, " (%.12s)", v.Commit)
	}
	if v.Modified {
		b.WriteString(" modified")
	}
	fmt.Fprintf(&b, "\n%s %s\nkernel %s (lowest supported: %s)\nOCI runtime specification %s, CNI %s\n",
		v.Go, v.Platform, v.Kernel, v.LowestKernel, v.OCIVersion, v.CNIVersion)
	return b.String()
}
