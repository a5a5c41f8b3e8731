package creds

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

// capSets are the five sets of a thread, capabilities(7).
type capSets struct {
	bounding, effective, permitted, inheritable, ambient capMask
}

func parseSets(c *specs.LinuxCapabilities) (s capSets, err error) {
	if c == nil {
		return s, errors.New("capability: no sets given")
	}
	for _, set := range []struct {
		name  string
		names []string
		to    *capMask
	}{
		{"bounding", c.Bounding, &s.bounding},
		{"effective", c.Effective, &s.effective},
		{"permitted", c.Permitted, &s.permitted},
		{"inheritable", c.Inheritable, &s.inheritable},
		{"ambient", c.Ambient, &s.ambient},
	} {
		if *set.to, err = parseNamedSet(set.names); err != nil {
			return s, fmt.Errorf("%s: %w", set.name, err)
		}
	}
	return s, nil
}

// parseNamedSet is parseCaps without ALL, which a specification can't say.
func parseNamedSet(names []string) (capMask, error) {
	m, all, err := parseCaps(names)
	if err == nil && all {
		err = unknownCap("ALL")
	}
	return m, err
}

// check finds a set that isn't inside the one that bounds it.
func (s capSets) check() error {
	for _, pair := range []struct {
		inner, outer         string
		innerMask, outerMask capMask
	}{
		{"effective", "permitted", s.effective, s.permitted},
		{"ambient", "inheritable", s.ambient, s.inheritable},
		{"ambient", "permitted", s.ambient, s.permitted},
		{"permitted", "bounding", s.permitted, s.bounding},
	} {
		if over := pair.innerMask &^ pair.outerMask; over != 0 {
			return fmt.Errorf("capability: %q: in the %s set, but not in the %s set; add it there", capName(over.lowest()), pair.inner, pair.outer)
		}
	}
	return nil
}

// DropBounding lowers the calling thread's bounding set to bounding, and reads it back. It takes
// CAP_SETPCAP. A capability that isn't in the set can't come back: asking for it is an error.
func DropBounding(bounding []string) error {
	want, err := parseNamedSet(bounding)
	if err != nil {
		return fmt.Errorf("bounding: %w", err)
	}
	// The library applies a bounding set without an error even when CAP_SETPCAP is missing.
	if err := apply(capability.BOUNDING, capSets{bounding: want}); err != nil {
		return fmt.Errorf("bounding: %w", err)
	}
	got, _, err := boundingSet()
	if err != nil {
		return err
	}
	return differ("bounding", want, got, "CAP_SETPCAP is needed to drop it")
}

// SetCapabilities sets the calling thread's effective, permitted, inheritable and ambient sets, and
// reads each back. For a user other than root, permitted and effective are cut to the ambient set:
// that is what an exec leaves (capabilities(7)), and so the checks of the exec itself are made with the
// user's own rights. Only capabilities that the thread is permitted can be asked for.
func SetCapabilities(c *specs.LinuxCapabilities) error {
	want, err := parseSets(c)
	if err != nil {
		return err
	}
	if unix.Geteuid() != 0 {
		want.permitted &= want.ambient
		want.effective &= want.permitted
	}
	have, err := threadSets()
	if err != nil {
		return err
	}
	if over := want.permitted &^ have.permitted; over != 0 {
		return fmt.Errorf("capability: %q: asked for, but this thread isn't permitted it", capName(over.lowest()))
	}
	if err := apply(capability.CAPS, want); err != nil {
		return err
	}
	// The kernel has emptied the ambient set but for this intersection: mostly nothing is left to do,
	// which saves some 100 calls. The library drops the errors of every ambient change.
	if want.permitted&want.inheritable|want.ambient != 0 {
		if err := apply(capability.AMBIENT, want); err != nil {
			return err
		}
	}
	got, err := currentSets()
	if err != nil {
		return err
	}
	return want.compare(got)
}

func (s capSets) compare(got capSets) error {
	if err := differ("permitted", s.permitted, got.permitted, ""); err != nil {
		return err
	}
	if err := differ("effective", s.effective, got.effective, ""); err != nil {
		return err
	}
	if err := differ("inheritable", s.inheritable, got.inheritable, ""); err != nil {
		return err
	}
	return differ("ambient", s.ambient, got.ambient, "it must be permitted and inheritable")
}

// differ names the first capability that isn't as it should be.
func differ(set string, want, got capMask, why string) error {
	diff := want ^ got
	if diff == 0 {
		return nil
	}
	c, is := diff.lowest(), "not asked for, but still in the set"
	if want.has(c) {
		is = "asked for, but not in the set"
	}
	if why != "" {
		is += "; " + why
	}
	return fmt.Errorf("%s: capability: %q: %s", set, capName(c), is)
}

// apply hands the sets that which names to the kernel, for the calling thread.
func apply(which capability.CapType, s capSets) error {
	// NewPid2 loads nothing: Load would read the main thread's /proc/self/status.
	c, err := capability.NewPid2(0)
	if err != nil {
		return fmt.Errorf("capability: %w", err)
	}
	for _, set := range []struct {
		which capability.CapType
		mask  capMask
	}{
		{capability.BOUNDING, s.bounding},
		{capability.EFFECTIVE, s.effective},
		{capability.PERMITTED, s.permitted},
		{capability.INHERITABLE, s.inheritable},
		{capability.AMBIENT, s.ambient},
	} {
		for n := range capability.Cap(64) {
			if set.mask.has(n) {
				c.Set(set.which, n)
			}
		}
	}
	if err := c.Apply(which); err != nil {
		return fmt.Errorf("capability: apply: %w", err)
	}
	return nil
}

// currentSets reads the calling thread's sets, all but bounding, from the kernel and not from
// /proc, which may be another's or not there.
func currentSets() (s capSets, err error) {
	if s, err = threadSets(); err != nil {
		return s, err
	}
	// "No capability can ever be ambient if it is not both permitted and inheritable": capabilities(7).
	could := s.permitted & s.inheritable
	for c := capability.Cap(0); could>>uint(c) != 0; c++ {
		if !could.has(c) {
			continue
		}
		set, err := readCap(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c))
		if err != nil {
			return s, fmt.Errorf("capability: read the ambient set: %w", err)
		}
		if set {
			s.ambient |= 1 << uint(c)
		}
	}
	return s, nil
}

// threadSets reads effective, permitted and inheritable set.
func threadSets() (s capSets, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return s, fmt.Errorf("capability: capget: %w", err)
	}
	s.effective = capMask(data[1].Effective)<<32 | capMask(data[0].Effective)
	s.permitted = capMask(data[1].Permitted)<<32 | capMask(data[0].Permitted)
	s.inheritable = capMask(data[1].Inheritable)<<32 | capMask(data[0].Inheritable)
	return s, nil
}

// readCap asks prctl(2) whether a capability is in a set. There are 41 such questions about the bounding set
// in a start, so they bypass the scheduler.
func readCap(option, arg2, arg3 uintptr) (bool, error) {
	set, _, e := unix.RawSyscall6(unix.SYS_PRCTL, option, arg2, arg3, 0, 0, 0)
	if e != 0 {
		return false, e
	}
	return set == 1, nil
}
