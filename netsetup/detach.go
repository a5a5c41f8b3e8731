package netsetup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Detach takes the interface of a out of target, which lives on. One that is gone is no
// error. What a has on the host besides, its record says (Undo); a host's own
// device comes home by that, too.
func Detach(target *NetNS, a Attachment) error {
	if isExternal(a.Strategy) {
		return nil // the plugin's DEL does it, from the record
	}
	switch a.Strategy {
	case "loopback", "netns", "host-device", "net-device":
		return nil
	}
	return target.Inside(func(in *Inside) error {
		return in.remove(a)
	})
}

// remove takes the interface away under its name, or the one under which it arrived if it
// was never configured.
func (in *Inside) remove(a Attachment) error {
	for _, name := range []string{a.IfName, a.Arrived} {
		if name == "" {
			continue
		}
		l, err := in.c.linkByName(name)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return err
		}
		if err := in.c.delLink(l.index); err != nil {
			return fmt.Errorf("%s: delete: %w", name, err)
		}
	}
	return nil
}

// ConfigureIn finishes the interface of a from outside of target: it does what the init of
// a container does in its own namespace.
func ConfigureIn(target *NetNS, a Attachment) error {
	return target.Inside(func(in *Inside) error {
		return Configure(in, a)
	})
}

// HasLink tells whether n has an interface called name.
func (n *NetNS) HasLink(name string) (has bool, err error) {
	err = n.Inside(func(in *Inside) error {
		if _, err = in.c.linkByName(name); errors.Is(err, unix.ENODEV) {
			return nil
		}
		has = err == nil
		return err
	})
	return has, err
}
