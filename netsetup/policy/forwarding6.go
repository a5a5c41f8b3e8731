package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// planAll6 switches IPv6 forwarding on where the kernel knows only one switch for
// all devices.
func (f *forwarding) planAll6() error {
	names, err := f.routes.advertised()
	if err != nil {
		return err
	}
	for _, name := range names {
		// 0 is someone's will, or a network manager that reads advertisements itself.
		if acceptRA(name).is("1") && forwarding6(name).is("0") {
			if err := f.want(change{Sysctl: acceptRA(name), Now: "2", Family: 6}, &f.steps); err != nil {
				return err
			}
		}
	}
	routers, err := devicesThatAre("1")
	if err != nil {
		return err
	}
	for _, name := range routers {
		// Switching all off again will take these along.
		f.ledger.append(change{Sysctl: forwarding6(name), Was: "1", Family: 6})
	}
	links, err := f.concerned(6)
	if err != nil {
		return err
	}
	for _, l := range links {
		f.ledger.open(opened{Device: l.Attrs().Name, Family: 6, Bridge: l.Type() == "bridge"})
	}
	return f.want(change{Sysctl: forwarding6("all"), Now: "1", Family: 6}, &f.steps)
}

// switchAll6 sets the switch for all devices, and then each device and the default
// for new ones back to what they were.
func switchAll6() error {
	hosts, err := devicesThatAre("0")
	if err != nil {
		return err
	}
	if err := forwarding6("all").write("1"); err != nil {
		return err
	}
	for _, name := range hosts {
		if err := forwarding6(name).write("0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// devicesThatAre returns the names below conf, "default" among them but not "all",
// whose forwarding has the value.
func devicesThatAre(value string) ([]string, error) {
	entries, err := os.ReadDir(sysctlRoot + "ipv6/conf")
	if err != nil {
		return nil, fmt.Errorf("sysctl: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name := path.Base(e.Name()); name != "all" && forwarding6(name).is(value) {
			names = append(names, name)
		}
	}
	return names, nil
}
