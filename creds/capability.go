package creds

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

// A capMask is a set of capabilities: bit n stands for capability n.
type capMask uint64

func (m capMask) has(c capability.Cap) bool { return m>>uint(c)&1 == 1 }

// lowest returns the first capability of a set that isn't empty.
func (m capMask) lowest() capability.Cap {
	c := capability.Cap(0)
	for !m.has(c) {
		c++
	}
	return c
}

// names returns CAP_ names in the order of the numbers, without those that have no name here.
func (m capMask) names() []string {
	names := []string{}
	for c := range lastNamed + 1 {
		if m.has(c) {
			names = append(names, capName(c))
		}
	}
	return names
}

// lastNamed is the last capability that the library knows by name; there was none newer in Linux 6.18.
const lastNamed = capability.CAP_CHECKPOINT_RESTORE

func capName(c capability.Cap) string {
	if c > lastNamed {
		return fmt.Sprintf("CAP_%d", int(c))
	}
	return "CAP_" + strings.ToUpper(c.String())
}

// capNumber finds a name: in any case, with or without CAP_.
func capNumber(name string) (capability.Cap, bool) {
	short := trimCap(name)
	for c := range lastNamed + 1 {
		if strings.EqualFold(short, c.String()) {
			return c, true
		}
	}
	return 0, false
}

func trimCap(name string) string {
	if len(name) > 4 && strings.EqualFold(name[:4], "CAP_") {
		return name[4:]
	}
	return name
}

// parseCaps turns names into a set; all reports whether ALL was among them.
func parseCaps(names []string) (m capMask, all bool, err error) {
	for _, name := range names {
		if strings.EqualFold(name, "ALL") {
			all = true
			continue
		}
		c, ok := capNumber(name)
		if !ok {
			return 0, false, unknownCap(name)
		}
		m |= 1 << uint(c)
	}
	return m, all, nil
}

func unknownCap(name string) error {
	known := make([]string, 0, lastNamed+1)
	for c := range lastNamed + 1 {
		known = append(known, strings.ToUpper(c.String()))
	}
	return fmt.Errorf("capability: %.64q: unknown; the nearest is %s", name, nearest(strings.ToUpper(trimCap(name)), known))
}

// defaultCaps are podman's eleven and NET_RAW, 0x800425fb: a container here exists to try a network,
// and ping with a file capability can't even be executed without it.
const defaultCaps capMask = 1<<capability.CAP_CHOWN | 1<<capability.CAP_DAC_OVERRIDE | 1<<capability.CAP_FOWNER |
	1<<capability.CAP_FSETID | 1<<capability.CAP_KILL | 1<<capability.CAP_SETGID | 1<<capability.CAP_SETUID |
	1<<capability.CAP_SETPCAP | 1<<capability.CAP_NET_BIND_SERVICE | 1<<capability.CAP_NET_RAW |
	1<<capability.CAP_SYS_CHROOT | 1<<capability.CAP_SETFCAP

// DefaultCapabilities are podman's eleven and NET_RAW, as CAP_ names in the order of their numbers.
func DefaultCapabilities() []string { return defaultCaps.names() }

// Capabilities turns `--cap-add`, `--cap-drop` and `--privileged` into the five sets: bounding,
// effective and permitted are equal; inheritable and ambient are empty (CVE-2022-24769,
// CVE-2016-8867). Names may be in any case and without CAP_.
//
// The order of the flags doesn't count. As for docker: the start is the default, or everything if
// privileged or `--cap-add ALL`; `--cap-drop ALL` empties it; then single names are dropped, and
// then single names are added. The same name (or ALL) in both is an error, as for podman.
//
// "Everything" is what the calling thread's own bounding set has, and a default that it lacks is left
// out; a single name that it lacks, or that the running kernel doesn't know, is an error.
func Capabilities(add, drop []string, privileged bool) (*specs.LinuxCapabilities, error) {
	ours, last, err := ownBounding()
	if err != nil {
		return nil, err
	}
	return fiveSets(mergeCaps(baseCaps(privileged, ours), add, drop, ours, last))
}

func baseCaps(privileged bool, ours capMask) capMask {
	if privileged {
		return ours
	}
	return defaultCaps
}

// ChangeCapabilities is Capabilities for a further program in a container: base, the container's bounding set, stands in the
// place of the default.
func ChangeCapabilities(base, add, drop []string) (*specs.LinuxCapabilities, error) {
	ours, last, err := ownBounding()
	if err != nil {
		return nil, err
	}
	set, err := parseNamedSet(base)
	if err != nil {
		return nil, err
	}
	return fiveSets(mergeCaps(set, add, drop, ours, last))
}

func fiveSets(set capMask, err error) (*specs.LinuxCapabilities, error) {
	if err != nil {
		return nil, err
	}
	return &specs.LinuxCapabilities{Bounding: set.names(), Effective: set.names(), Permitted: set.names()}, nil
}

func mergeCaps(set capMask, add, drop []string, ours capMask, last capability.Cap) (capMask, error) {
	adds, addAll, err := parseCaps(add)
	if err != nil {
		return 0, err
	}
	drops, dropAll, err := parseCaps(drop)
	if err != nil {
		return 0, err
	}
	if addAll && dropAll {
		return 0, fmt.Errorf("capability: \"ALL\": both added and dropped; ALL can be in one of the flags only")
	}
	if both := adds & drops; both != 0 {
		return 0, fmt.Errorf("capability: %q: both added and dropped; leave it out of one of the flags", capName(both.lowest()))
	}
	if err := lacking(adds, ours, last); err != nil {
		return 0, err
	}
	if addAll {
		set = ours
	}
	if dropAll {
		set = 0
	}
	return (set&^drops | adds) & ours, nil
}

// lacking explains the first capability of asked that isn't in ours.
func lacking(asked, ours capMask, last capability.Cap) error {
	missing := asked &^ ours
	if missing == 0 {
		return nil
	}
	c := missing.lowest()
	if c > last {
		return fmt.Errorf("capability: %q: the running kernel doesn't have it, its last is %s", capName(c), capName(last))
	}
	return fmt.Errorf("capability: %q: not in the bounding set of this process, so it can't be given; drop it, or start nsinit with it",
		capName(c))
}

// boundingSet returns the calling thread's bounding set, and the kernel's last capability.
func boundingSet() (m capMask, last capability.Cap, err error) {
	for c := range capability.Cap(64) {
		set, err := readCap(unix.PR_CAPBSET_READ, uintptr(c), 0)
		switch {
		case errors.Is(err, unix.EINVAL) && c > 0:
			return m, c - 1, nil
		case err != nil:
			return 0, 0, fmt.Errorf("capability: read the bounding set: %w", err)
		case set:
			m |= 1 << uint(c)
		}
	}
	return m, 63, nil
}

// own is the bounding set that the process was started with: what it can give. Read once, for it takes a system call
// a capability.
var own struct {
	once sync.Once
	set  capMask
	last capability.Cap
	err  error
}

func ownBounding() (capMask, capability.Cap, error) {
	own.once.Do(func() { own.set, own.last, own.err = boundingSet() })
	return own.set, own.last, own.err
}

// CheckCapabilities checks sets that are written in a specification, against each other and against
// what the calling thread could give. It changes nothing.
func CheckCapabilities(c *specs.LinuxCapabilities) error {
	ours, last, err := ownBounding()
	if err != nil {
		return err
	}
	s, err := parseSets(c)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	return lacking(s.bounding|s.inheritable, ours, last)
}
