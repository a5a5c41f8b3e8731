package main

import (
	"errors"
	"fmt"
	"strings"
)

// securityOptions are what --security-opt asks, in the words of docker.
type securityOptions struct {
	apparmor   string    // profile; "" = not asked
	label      [5]string // user, role, type, level, filetype
	labelled   bool      // one of label is set
	unlabelled bool      // label=disable
	noNewPrivs *bool     // nil = not asked
}

// The parts of an SELinux label, in their order.
const (
	labelUser = iota
	labelRole
	labelType
	labelLevel
	labelFileType
)

// set parses one value.
func (o *securityOptions) set(s string) error {
	i := strings.IndexAny(s, "=:")
	word, value := s, ""
	if i >= 0 {
		word, value = s[:i], s[i+1:]
	}
	switch word {
	case "apparmor":
		if value == "" {
			return errors.New("no profile")
		}
		o.apparmor = value
		return nil
	case "label":
		return o.setLabel(value)
	case "no-new-privileges":
		return o.setNoNewPrivs(i >= 0, value)
	case "seccomp":
		if value == "unconfined" {
			return nil // there is no filter yet
		}
		return errors.New("there are no seccomp profiles yet; seccomp=unconfined says so")
	}
	return errors.New("unknown; one of apparmor=PROFILE, label=disable, label=user:U, label=role:R, " +
		"label=type:T, label=level:L, label=filetype:T, no-new-privileges[:true|false]")
}

func (o *securityOptions) setNoNewPrivs(given bool, value string) error {
	on := value == "true" || !given
	if !on && value != "false" {
		return errors.New("neither true nor false")
	}
	o.noNewPrivs = &on
	return nil
}

func (o *securityOptions) setLabel(s string) error {
	if s == "disable" {
		o.unlabelled = true
		return o.checkLabel()
	}
	part, value, ok := strings.Cut(s, ":")
	if !ok || value == "" {
		return errors.New("want label=disable or label=PART:VALUE")
	}
	for i := range len(value) {
		if c := value[i]; !isAlnum(c) && strings.IndexByte("._-:,", c) < 0 {
			return fmt.Errorf("character %q in the label", firstRune(value[i:]))
		}
	}
	switch part {
	case "user":
		o.label[labelUser] = value
	case "role":
		o.label[labelRole] = value
	case "type":
		o.label[labelType] = value
	case "level":
		o.label[labelLevel] = value
	case "filetype":
		o.label[labelFileType] = value
	default:
		return fmt.Errorf("%s: no part of a label; one of user, role, type, level, filetype", quote(part))
	}
	o.labelled = true
	return o.checkLabel()
}

func (o *securityOptions) checkLabel() error {
	if o.unlabelled && o.labelled {
		return errors.New("label=disable and another label contradict each other")
	}
	return nil
}

// labels are the labels of the process and of the mounts, "" where none is asked.
// What isn't given is as in the policies' container domain.
func (o *securityOptions) labels() (process, mount string) {
	if !o.labelled {
		return "", ""
	}
	or := func(part int, standard string) string {
		if o.label[part] != "" {
			return o.label[part]
		}
		return standard
	}
	user, level := or(labelUser, "system_u"), or(labelLevel, "s0")
	process = strings.Join([]string{user, or(labelRole, "system_r"), or(labelType, "container_t"), level}, ":")
	mount = strings.Join([]string{user, "object_r", or(labelFileType, "container_file_t"), level}, ":")
	return process, mount
}
