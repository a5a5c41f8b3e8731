package lsm

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Unconfined is the AppArmor "profile" that asks for none.
const Unconfined = "unconfined"

// maxText is what one write into an attribute takes (fs/proc/base.c: a page), less "exec " and a NUL.
const maxText = 4096 - 16

// Config is what is asked. Empty fields ask nothing.
type Config struct {
	AppArmor     string // profile for the exec; "unconfined" asks for none, also where there is no AppArmor
	ProcessLabel string // SELinux label of the process, user:role:type[:level]
	MountLabel   string // SELinux label of the mounts that are made
}

// Validate refuses malformed names and labels, and what the running kernel does not have. It is
// called on the host side, before anything is made.
func (c Config) Validate() error {
	if err := c.validateAppArmor(); err != nil {
		return err
	}
	return c.validateSELinux()
}

func (c Config) validateAppArmor() error {
	if c.AppArmor == "" {
		return nil
	}
	if err := checkProfile(c.AppArmor); err != nil {
		return err
	}
	if c.AppArmor == Unconfined {
		return nil
	}
	on, err := active(appArmor)
	if err != nil {
		return err
	}
	if !on {
		return noAppArmor(c.AppArmor, nil)
	}
	return checkLoaded(profilesPath, c.AppArmor)
}

func (c Config) validateSELinux() error {
	for _, l := range []struct{ what, label string }{{"process label", c.ProcessLabel}, {"mount label", c.MountLabel}} {
		if l.label == "" {
			continue
		}
		if err := checkLabel(l.label); err != nil {
			return fmt.Errorf("selinux: %s: %w", l.what, err)
		}
		on, err := active(seLinux)
		if err != nil {
			return err
		}
		if !on {
			return fmt.Errorf("selinux: %s: %w", l.what, noSELinux(l.label, nil))
		}
		if err := checkPolicy("/proc/self/attr/current", l.label); err != nil {
			return fmt.Errorf("selinux: %s: %w", l.what, err)
		}
		if err := checkKnown(contextPath, l.label); err != nil {
			return fmt.Errorf("selinux: %s: %w", l.what, err)
		}
	}
	return nil
}

// checkProfile takes any name that AppArmor could: profiles may be named by paths, have spaces inside,
// be stacked (a//&b) or lie in a policy namespace (:ns:name).
func checkProfile(s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("apparmor: profile %.64q: longer than %d bytes", s, maxText)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("apparmor: profile %.64q: begins or ends with a space", s)
	}
	if err := checkText(s); err != nil {
		return fmt.Errorf("apparmor: profile %.64q: %w", s, err)
	}
	return nil
}

// checkLabel takes user:role:type[:level], where level may have colons of its own (s0:c1,c2).
func checkLabel(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("label %.64q: longer than %d bytes", s, maxText)
	}
	if err := checkText(s); err != nil {
		return fmt.Errorf("label %.64q: %w", s, err)
	}
	parts := strings.SplitN(s, ":", 4)
	if len(parts) < 3 {
		return fmt.Errorf("label %.64q: the form is user:role:type[:level]", s)
	}
	for i, p := range parts {
		if p == "" {
			return fmt.Errorf("label %.64q: its %s is empty; the form is user:role:type[:level]", s, [...]string{"user", "role", "type", "level"}[i])
		}
	}
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return fmt.Errorf("label %.64q: has a space", s)
	}
	return nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return fmt.Errorf("has the control character %q", c)
		}
	}
	return nil
}
