package differential

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

// playRun runs a container on a case's network by nsinit run --network, and deletes it.
func playRun(t *testing.T, tc *testCase) history {
	t.Helper()
	s := newStage(t, tc)
	s.vanish(t)
	file, out := filepath.Join(t.TempDir(), "net.conflist"), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(file, tc.conflist(), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(out) // a pipe would stay open as long as the container lives
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := s.machine.Command(nsinitBin, "run", "-d", "--name", containerID, "--network", file, "sleep", "600")
	cmd.Stdout, cmd.Stderr = f, f
	h := history{facts: map[string]facts{}, said: map[string]string{}}
	r := s.machine.RunCmd(t, cmd)
	h.said["run"] = readFile(out)
	outcome := facts{}
	outcome.put("outcome", "code", map[bool]string{true: "ok", false: "fails"}[r.Code == 0])
	if r.Code != 0 {
		s.awaitEnd(t)
		h.facts["run"] = s.facts(t, outcome).ofRun()
		s.end(t)
		return h
	}
	pid := netsetuptest.Decode[struct{ Pid int }](t, s.machine.Run(t, nsinitBin, "state", containerID).OK(t)).Pid
	t.Run("inside", func(t *testing.T) { // whose end closes the namespace
		s.inside = newPlace(t, s.machine.Container(t, pid), "inside")
		h.facts["run"] = s.facts(t, outcome).ofRun()
		s.inside.close()
		s.inside = nil
	})
	h.said["run's end"] = s.machine.Run(t, nsinitBin, "delete", "--force", containerID).OK(t).Stderr
	s.awaitEnd(t)
	h.facts["run's end"] = s.facts(t, facts{}).ofRun()
	s.end(t)
	return h
}

// asRun is what a run has to be like: as ADD and DEL by the plugins, but that no answers are seen and that the container's
// namespace ends with it.
func (h history) asRun() history {
	as := history{facts: map[string]facts{"run": h.facts["ADD"].ofRun(), "run's end": h.facts["DEL"].ofRun()}, said: map[string]string{}}
	outcome := outcomeCode
	if as.facts["run"][outcome] != "ok" {
		as.facts["run"][outcome] = "fails"
	}
	maps.DeleteFunc(as.facts["run's end"], func(k fact, _ string) bool { return strings.HasPrefix(k.object, "inside ") || k == outcome })
	if as.facts["run"][outcome] == "fails" {
		as.facts["run"] = maps.Clone(as.facts["run's end"]) // a runtime calls DEL
		as.facts["run"][outcome] = "fails"
	}
	return as
}

// ofRun leaves out what a run doesn't have: answers, and the stage's own settings of the container's namespace.
func (f facts) ofRun() facts {
	out := facts{}
	for k, v := range f {
		switch {
		case strings.HasPrefix(k.object, "answer "), strings.HasPrefix(k.object, "probe "):
		case strings.HasSuffix(k.attr, "/dad_transmits"), strings.HasSuffix(k.attr, "/router_solicitation_delay"):
		default:
			out[k] = v
		}
	}
	return out
}

// awaitEnd waits until the kernel has removed the container's namespace, which takes its veths and macvlans along.
func (s *stage) awaitEnd(t *testing.T) {
	t.Helper()
	err := s.machine.Do(func() error {
		return netsetuptest.Retry(netsetuptest.Patience/4, func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				a := l.Attrs()
				if a.Promisc > 0 && a.MasterIndex == 0 || l.Type() == "veth" && a.NetNsID >= 0 && a.Name != s.outside.HostIf {
					return fmt.Errorf("%s is there, or in use", a.Name)
				}
			}
			return err
		})
	})
	if err != nil {
		t.Log(err)
	}
}
