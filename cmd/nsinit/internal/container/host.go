package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/inside"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/program"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/step"
	"github.com/nsinit/nsinit/cmd/nsinit/internal/wire"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
	"golang.org/x/sys/unix"
)

// host is the host side of one start.
type host struct {
	*Runtime
	ctx  context.Context
	spec *Spec

	rec      *record
	cgroup   *os.File
	planned  func() error // waits for plans and net; nil: nobody makes them
	plans    []netsetup.Plan
	net      *netsetup.Host  // nil without a network of ours
	netns    *netsetup.NetNS // the container's; joined or its own
	conn     *wire.Conn
	exe      *selfExe // what the init is executed from; nil once it is let go
	pidfd    *os.File
	pid      int
	ended    bool            // the init has ended and is reaped
	status   unix.WaitStatus // of its end
	detached bool            // the record's objects were undone
	leftover bool            // an undo failed: the record has to stay
	root     *os.File        // built here for a user namespace, else nil
	master   *os.File        // the terminal's host end
	signals  *signalRelay
}

// hostSteps is what the host side does, in order. Each undo works on what was only begun, too, and
// everything on the host that isn't a process or a namespace is undone from the record.
var hostSteps = []step.Step[*host]{
	{Name: "state", Do: (*host).claimState, Undo: (*host).removeState},
	{Name: "cgroup", Do: (*host).makeCgroup, Undo: (*host).removeCgroup},
	{Name: "child", Do: (*host).startChild, Undo: (*host).endChild},
	{Name: "plan", Do: (*host).awaitPlans, When: (*host).hasNetworks, Undo: (*host).closeNetworks},
	{Name: "ports", Do: (*host).reservePorts, When: (*host).publishes, Undo: (*host).detachNetworks},
	{Name: "root", Do: (*host).prepareRoot, When: (*host).newUserns, Undo: (*host).closeRoot},
	{Name: "network", Do: (*host).attachNetworks, Undo: (*host).detachNetworks},
	{Name: "netns-name", Do: (*host).bindNetns, When: (*host).hasNetnsName},
	{Name: "record", Do: (*host).recordCreating},
	{Name: "release", Do: (*host).release},
	{Name: "ready", Do: (*host).awaitReady},
	{Name: "running", Do: (*host).recordRunning},
}

// HostSteps returns the names of the host side's steps in order.
func HostSteps() []string { return step.Names(hostSteps) }

// InitSteps returns the names of the init's steps in order.
func InitSteps() []string { return inside.StepNames() }

// Run starts a container and, unless s.Detach, waits for its end. It returns the program's
// exit code, 128+signal if one killed it. An error is nsinit's own failure (ExitCode tells 125, 126 or 127).
// With s.Detach the code is 0 and the id is in s.ID. The calling goroutine must be locked to the main thread:
// the container dies with the thread that started it.
func (r *Runtime) Run(ctx context.Context, s *Spec) (int, error) {
	gate.Open()
	if err := s.Validate(); err != nil {
		return exitNsinit, err
	}
	if s.ID == "" {
		s.ID = os.Getenv(monitorEnv) // a monitor has its parent's
	}
	if s.ID == "" {
		var err error
		if s.ID, err = newID(); err != nil {
			return exitNsinit, err
		}
	}
	if s.needsMonitor() {
		return r.startMonitor(s)
	}
	if r.isMonitor() {
		s.Interactive = false // the caller's terminal is not ours
	}
	h := &host{Runtime: r, ctx: ctx, spec: s}
	h.signals = relaySignals(h)
	err := plain(step.Run("host", hostSteps, h, r.tracer("host")))
	sig := h.signals.settle()
	if r.isMonitor() {
		reportToParent(sig, err)
	}
	if sig != 0 {
		if err == nil {
			h.end()
		}
		s.Detach = false // there is nothing left to be detached
		return program.ExitSignal + int(sig), nil
	}
	if err != nil {
		return ExitCode(err), err
	}
	if s.Detach && !r.isMonitor() {
		h.leave()
		return 0, nil
	}
	code := h.supervise()
	if r.isMonitor() { // what a detached container holds goes with delete
		h.leave()
		s.Detach = false // its parent has said what there is to say
		return code, nil
	}
	h.end()
	return code, nil
}

// end removes the container and what it holds.
func (h *host) end() {
	if err := step.Undo(hostSteps, h); err != nil {
		h.warn(oneLine(err) + "; run nsinit gc")
	}
}

// newID is 12 hex digits, as docker prints them.
func newID() (string, error) {
	var b [6]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return fmt.Sprintf("%x", b), nil
}

func (h *host) claimState() (err error) {
	<-h.signals.caught.Ending // from here on there is something to be undone
	h.rec, err = h.claim(h.spec.ID)
	if err != nil {
		return err
	}
	s := h.spec
	p := s.OCI.Process
	h.rec.state = recorded{
		Version: recordVersion,
		BootID:  bootID(),
		Foreign: s.HostNet || s.joins(),
		Process: run{
			Env: h.environment(), Cwd: p.Cwd, User: s.User, NoNewPrivs: p.NoNewPrivileges, Privileged: s.Privileged,
			Caps: p.Capabilities.Bounding, AppArmor: p.ApparmorProfile, Label: p.SelinuxLabel, Userns: s.userns(),
			Umask: *p.User.Umask, Rlimits: p.Rlimits,
		},
		State: State{
			OCIVersion: s.OCI.Version, ID: s.ID, Status: StatusCreating, Created: time.Now().UTC(), Args: p.Args,
			Rootfs: s.OCI.Root.Path, Bundle: s.OCI.Root.Path, Detached: s.Detach, NetnsName: s.NetnsName, Networks: []netsetup.Attachment{},
		},
	}
	return nil
}

func (h *host) removeState() error {
	if h.rec == nil {
		return nil
	}
	if h.leftover { // gc and delete work from the record
		h.rec.lock.Unlock()
		return nil
	}
	return h.rec.remove()
}

// remove ends the record. The lock goes last, so that nobody takes a half-removed directory for a container.
func (c *record) remove() error {
	if _, err := os.Lstat(c.path(frozenFile)); err == nil { // of an exec that was killed
		if err := c.clearEntry(); err != nil {
			return err
		}
	}
	err := os.RemoveAll(c.dir)
	for i := 0; i < 10 && errors.Is(err, unix.ENOTEMPTY); i++ { // somebody looked for the lock just now
		err = os.RemoveAll(c.dir)
	}
	c.lock.Unlock()
	return err
}

// makeCgroup gives the container a cgroup of its own, so that all of it can be killed at once. Limits come later. A host
// without a unified hierarchy has none: there the pid namespace has to do.
func (h *host) makeCgroup() (err error) {
	root := cgroupRoot()
	if root == "" {
		return nil
	}
	parent := h.spec.CgroupParent
	if parent == "" {
		parent = defaultCgroupParent
	}
	path := filepath.Join(root, parent, h.spec.ID)
	// Somebody else's is not recorded as ours.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: exists already; remove it or choose another --name", path)
	}
	// Recorded first: a start that is killed here leaves a record that names it.
	if err := h.rec.journal(netsetup.Object{Kind: kindCgroup, Name: path, Owner: h.spec.ID}); err != nil {
		return err
	}
	h.cgroup, err = makeCgroup(path)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s: exists already; remove it or choose another --name", path)
	}
	if err == nil {
		h.rec.state.Cgroup = path
	}
	return err
}

func (h *host) removeCgroup() error {
	if h.cgroup == nil {
		return nil
	}
	_ = h.cgroup.Close()
	return h.leaves(errors.Join(killCgroup(h.rec.state.Cgroup), removeCgroup(h.rec.state.Cgroup)))
}

// leaves notes that something of the container is still there, if err is one.
func (h *host) leaves(err error) error {
	h.leftover = h.leftover || err != nil
	return err
}

func (h *host) newUserns() bool { return h.spec.userns() }

func (h *host) closeRoot() error {
	if h.root == nil {
		return nil
	}
	return h.root.Close()
}

// recordCreating writes down which process is the init, before it is let go: from here on a killed start leaves a
// record that gc can end the container by.
func (h *host) recordCreating() (err error) {
	h.rec.state.Pid = h.pid
	if h.rec.state.StartTime, _, err = startTime(h.pid); err != nil {
		return h.childError(err)
	}
	return h.rec.saveInit()
}

// release sends the init all that it needs. Nothing else lets it go.
func (h *host) release() error {
	start, err := h.startFrame()
	if err != nil {
		return err
	}
	var fds []int
	if h.root != nil {
		fds = []int{int(h.root.Fd())}
	}
	if err := h.conn.Send(wire.Go, start, fds...); err != nil {
		return h.childError(err)
	}
	return nil
}

// awaitReady reads frames until the sync pipe ends by close-on-exec: the program runs.
func (h *host) awaitReady() error {
	// While the init works: the kernel takes its time for the first, the runtime for the second, encoding/json for the third.
	h.closeExe()
	<-h.signals.caught.Common
	if err := h.rec.save(); err != nil {
		return err
	}
	trace, execing := h.tracer("init"), false
	for {
		f, err := h.conn.Receive()
		switch {
		case errors.Is(err, io.EOF) && execing:
			return h.started()
		case errors.Is(err, io.EOF):
			return h.childError(errors.New("the pipe ended"))
		case err != nil:
			return h.childError(err)
		case f.Type == wire.Exec:
			execing = true
			if !h.spec.Detach {
				h.signals.hold()
			}
		case f.Type == wire.Console && len(f.Files) == 1:
			h.master = f.Files[0]
		case f.Type == wire.Trace:
			var t wire.Traced
			if wire.Unmarshal(f.Body, &t) == nil && trace != nil {
				trace(t.Step, t.Took)
			}
		case f.Type == wire.Failed:
			var failed wire.Failure
			if err := wire.Unmarshal(f.Body, &failed); err != nil {
				return err
			}
			return &initError{failed}
		default:
			return fmt.Errorf("sync pipe: unexpected frame %d", f.Type)
		}
	}
}

// started gives the signals to a foreground program from its first moment on. A detached start can still be ended.
func (h *host) started() error {
	if h.spec.Detach {
		return nil
	}
	if sig := h.signals.settle(); sig != 0 {
		return fmt.Errorf("ended by %s", sig)
	}
	return nil
}

// recordRunning makes the container visible as running, and tells its pid.
func (h *host) recordRunning() error {
	if err := h.rec.setRunning(); err != nil {
		return err
	}
	if h.spec.PidFile == "" {
		return nil
	}
	return writeFileWhole(h.spec.PidFile, fmt.Appendf(nil, "%d", h.pid), 0o644)
}

// leave lets a detached container go its own way.
func (h *host) leave() {
	_ = h.closeNetworks()
	_ = h.conn.Close()
	h.rec.lock.Unlock()
}

// writeFileWhole writes a file whole or not at all.
func writeFileWhole(path string, content []byte, mode os.FileMode) error {
	tmp := path + ".nsinit-new"
	gate.Change()
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	gate.Change()
	return os.Rename(tmp, path)
}
