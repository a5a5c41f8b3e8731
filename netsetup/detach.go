package netsetup

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// KindInterface is the kind of the object that an interface is recorded as in a namespace
// that lives on without it. Name is the namespace's path, Was its inode.
const KindInterface = "interface"

// recordInterface writes down that p's interface is about to be made in target, unless
// that ends with the container and the interface with it. One that is there already is
// somebody else's, and must not be taken for ours when the record is undone. A device of
// the host has a record of its own: see loan.
func recordInterface(target *NetNS, p Plan, record Recorder) error {
	switch {
	case !p.Joined, p.Strategy == "netns", p.Strategy == "host-device", p.Strategy == "net-device":
		return nil
	case p.IfName == loopbackIfName:
	default:
		has, err := target.HasLink(p.IfName)
		if err != nil {
			return err
		}
		if has {
			return fmt.Errorf("%s: make: the container's network namespace has an interface of this name already; give another interface_name: %w", p.IfName, unix.EEXIST)
		}
	}
	id, err := target.id()
	if err != nil {
		return err
	}
	return record(Object{
		Kind: KindInterface, Network: p.networkName(), Name: target.f.Name(), Owner: p.Owner,
		IfName: p.IfName, Was: strconv.FormatUint(id, 10),
	})
}

// undoInterface takes the interface out of its namespace; lo, which can't go, is set down.
func undoInterface(o Object) error {
	id, err := strconv.ParseUint(o.Was, 10, 64)
	if err != nil {
		return fmt.Errorf("interface %s: its record is not to be understood: %w", o.IfName, err)
	}
	return inRecorded(o, id, func(in *Inside) error {
		if o.IfName == loopbackIfName {
			return in.lowerLoopback()
		}
		return in.remove(Attachment{IfName: o.IfName})
	})
}

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
