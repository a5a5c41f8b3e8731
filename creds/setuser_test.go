package creds

import (
	"os"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

func TestDefaultContainerForRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	caps, err := Capabilities(nil, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	p := &plan{Caps: caps, User: &User{Groups: []uint32{0}}, NoNewPrivs: true, CloseFDs: true}
	assertStatus(t, p.status(t), map[string]string{
		"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "0", "NoNewPrivs": "1",
		"CapBnd": "00000000800425fb", "CapPrm": "00000000800425fb", "CapEff": "00000000800425fb",
		"CapInh": mask(0), "CapAmb": mask(0),
	})
}

func TestDefaultContainerForUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	caps, err := Capabilities(nil, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, offMain := range map[string]bool{"main thread": false, "other thread": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &plan{Caps: caps, User: &User{UID: 1000, GID: 2000, Groups: []uint32{2000, 30, 7, 30}}, OffMain: offMain}
			assertStatus(t, p.status(t), map[string]string{
				"Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000", "Groups": "7 30 2000", "NoNewPrivs": "0",
				"CapBnd": "00000000800425fb", "CapPrm": mask(0), "CapEff": mask(0), "CapInh": mask(0), "CapAmb": mask(0),
			})
		})
	}
}

func TestAmbientReachesUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	bind := []string{"CAP_NET_BIND_SERVICE"}
	p := &plan{
		Caps:       &specs.LinuxCapabilities{Bounding: bind, Effective: bind, Permitted: bind, Inheritable: bind, Ambient: bind},
		User:       &User{UID: 1000, GID: 1000},
		NoNewPrivs: true,
	}
	one := mask(1 << capability.CAP_NET_BIND_SERVICE)
	assertStatus(t, p.status(t), map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000", "Groups": "",
		"CapBnd": one, "CapPrm": one, "CapEff": one, "CapInh": one, "CapAmb": one,
	})
}

func TestEverythingIsWhatWeHave(t *testing.T) {
	t.Parallel()
	needRoot(t)
	ours, _, err := boundingSet()
	if err != nil {
		t.Fatal(err)
	}
	caps, err := Capabilities(nil, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	p := &plan{Caps: caps, User: &User{}}
	assertStatus(t, p.status(t), map[string]string{"CapBnd": mask(ours), "CapPrm": mask(ours), "CapEff": mask(ours), "CapInh": mask(0)})
}

func TestOnlyTheCallingThreadChanges(t *testing.T) {
	t.Parallel()
	needRoot(t)
	var thread, other []byte
	if err := onDyingThread(func() error {
		if err := SetUser(User{UID: 1234, GID: 1234, Groups: []uint32{1234}}); err != nil {
			return err
		}
		if err := SetNoNewPrivs(); err != nil {
			return err
		}
		thread, _ = os.ReadFile("/proc/thread-self/status")
		other, _ = os.ReadFile("/proc/self/status")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	assertStatus(t, parseStatus(string(thread)), map[string]string{"Uid": "1234 1234 1234 1234", "Groups": "1234", "NoNewPrivs": "1"})
	assertStatus(t, parseStatus(string(other)), map[string]string{"Uid": "0 0 0 0", "NoNewPrivs": "0"})
}

// Each refusal of the kernel, and each thing that the library would keep to itself, is an error.
func TestRefusals(t *testing.T) {
	t.Parallel()
	needRoot(t)
	all, err := Capabilities(nil, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	without := func(name string) *specs.LinuxCapabilities {
		c, err := Capabilities([]string{"ALL"}, []string{name}, false)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ambientOnly := *all
	ambientOnly.Ambient = []string{"CAP_KILL"}
	for name, c := range map[string]struct {
		first *plan // what the thread gives up before
		then  plan
		want  []string
	}{
		"bounding without CAP_SETPCAP": {
			&plan{Caps: &specs.LinuxCapabilities{Bounding: all.Bounding, Permitted: without("SETPCAP").Permitted, Effective: without("SETPCAP").Effective}},
			plan{Caps: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}},
			[]string{"bounding", `"CAP_CHOWN"`, "still in the set", "CAP_SETPCAP"},
		},
		"bounding that is gone": {
			&plan{Caps: without("KILL")}, plan{Caps: all}, []string{"bounding", `"CAP_KILL"`, "not in the set"},
		},
		"permitted that is gone": {
			&plan{Caps: &specs.LinuxCapabilities{Bounding: all.Bounding, Permitted: without("KILL").Permitted, Effective: without("KILL").Effective}},
			plan{Caps: all},
			[]string{`"CAP_KILL"`, "isn't permitted"},
		},
		"ambient that isn't inheritable": {
			nil, plan{Caps: &ambientOnly}, []string{"ambient", `"CAP_KILL"`, "not in the set", "inheritable"},
		},
		"groups without CAP_SETGID": {
			&plan{Caps: without("SETGID")}, plan{User: &User{Groups: []uint32{5}}}, []string{"groups", "CAP_SETGID"},
		},
		"uid without CAP_SETUID": {
			&plan{Caps: without("SETUID")}, plan{User: &User{UID: 5}}, []string{"uid: 5", "not permitted"},
		},
		"uid out of range":   {nil, plan{User: &User{UID: maxID + 1}}, []string{"outside 0..4294967294"}},
		"unknown capability": {nil, plan{Caps: &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_ADMN"}}}, []string{`"CAP_NET_ADMN"`, "nearest is NET_ADMIN"}},
		"ALL in a set":       {nil, plan{Caps: &specs.LinuxCapabilities{Bounding: []string{"ALL"}}}, []string{`"ALL"`, "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := onDyingThread(func() error { return inTurn(c.first, &c.then) })
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
		})
	}
}

// inTurn runs first and then on the calling thread, without an exec. Only then may fail.
func inTurn(first, then *plan) error {
	for i, p := range []*plan{first, then} {
		if p == nil {
			continue
		}
		err := p.steps()
		if i == 1 || err != nil {
			return err
		}
	}
	return nil
}

func TestNoCapabilitySets(t *testing.T) {
	t.Parallel()
	if err := SetCapabilities(nil); err == nil {
		t.Error("nil sets are taken")
	}
}

// In a user namespace the kernel refuses what has no mapping, and groups where setgroups is denied.
func TestRefusalsInUserNamespace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setgroups bool
		user      User
		want      string
	}{
		"uid without mapping":   {true, User{UID: 5}, "uid: 5: invalid argument: it has no mapping in the user namespace"},
		"gid without mapping":   {true, User{GID: 5}, "gid: 5: invalid argument: it has no mapping in the user namespace"},
		"group without mapping": {true, User{Groups: []uint32{5}}, "groups: [5]: setgroups: invalid argument: one of them has no mapping in the user namespace"},
		"setgroups denied":      {false, User{Groups: []uint32{0}}, "groups: [0]: setgroups: operation not permitted: CAP_SETGID is missing, or the user namespace denies it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.setgroups {
				needRoot(t)
			}
			cmd := (&plan{User: &c.user, Exec: []string{"/bin/true"}}).command(t)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:                 unix.CLONE_NEWUSER,
				UidMappings:                []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings:                []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
				GidMappingsEnableSetgroups: c.setgroups,
			}
			out, err := cmd.CombinedOutput()
			if cmd.Process == nil {
				t.Skipf("needs user namespaces: %v", err)
			}
			if err == nil || !strings.HasPrefix(string(out), c.want) {
				t.Errorf("got %v, %s, want %s", err, out, c.want)
			}
		})
	}
}
