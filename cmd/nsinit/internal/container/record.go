package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/gate"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A record is one container's directory: its lock, its state and the journal of what
// it has on the host. Whoever holds the lock owns the container: a foreground run until its end, else
// whoever deletes it.
type record struct {
	dir   string
	lock  *lock
	state recorded
}

// recordVersion is the version of state.json. A record of another version is left alone.
const recordVersion = 1

// recorded is the content of state.json.
type recorded struct {
	Version   int    `json:"version"`
	BootID    string `json:"bootID"`
	StartTime uint64 `json:"startTime"` // of Pid: field 22 of /proc/PID/stat, which tells a reused pid
	Process   run    `json:"process"`
	// Requests are what Networks were made of, index by index: to check them against the
	// kernel takes what was asked for.
	Requests []netsetup.Request `json:"requests,omitempty"`
	// Foreign says that the network namespace isn't the container's own: the host's, or one
	// that was joined.
	Foreign bool `json:"foreignNetwork,omitempty"`
	State
}

// run is what exec needs to give a further program the same restrictions.
type run struct {
	Env        []string            `json:"env"`
	Cwd        string              `json:"cwd"`
	User       string              `json:"user"`
	NoNewPrivs bool                `json:"noNewPrivs"`
	Privileged bool                `json:"privileged"`
	Umask      uint32              `json:"umask"`
	Caps       []string            `json:"capabilities"`
	AppArmor   string              `json:"apparmor,omitempty"`
	Label      string              `json:"label,omitempty"`
	Userns     bool                `json:"userns,omitempty"`
	Rlimits    []specs.POSIXRlimit `json:"rlimits,omitempty"`
}

// State is what is known of a container. Its JSON is the OCI runtime specification's state, and more.
type State struct {
	OCIVersion  string                `json:"ociVersion"`
	ID          string                `json:"id"`
	Status      string                `json:"status"` // creating, running, stopped
	Pid         int                   `json:"pid,omitempty"`
	Bundle      string                `json:"bundle"`
	Annotations map[string]string     `json:"annotations,omitempty"`
	Created     time.Time             `json:"created"`
	Args        []string              `json:"args"`
	Rootfs      string                `json:"rootfs"`
	Detached    bool                  `json:"detached"`
	NetnsName   string                `json:"netnsName,omitempty"`
	Cgroup      string                `json:"cgroup,omitempty"`
	Networks    []netsetup.Attachment `json:"networks"`
}

// The statuses of the OCI runtime specification that nsinit knows.
const (
	StatusCreating = "creating"
	StatusRunning  = "running"
	StatusStopped  = "stopped"
)

// claim makes the record of a new container and locks it. The directory is what makes ids unique.
func (r *Runtime) claim(id string) (*record, error) {
	if err := r.ensureRoot(); err != nil {
		return nil, err
	}
	claims, err := r.claimLock(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer claims.Unlock()
	rec := &record{dir: filepath.Join(r.containers(), id)}
	if err := os.Mkdir(rec.dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%q: is in use (%s); choose another --name or run nsinit delete %s", id, r.status(id), id)
	} else if err != nil {
		return nil, err
	}
	if rec.lock, err = lockFile(rec.path("lock"), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, os.RemoveAll(rec.dir))
	}
	if !rec.lock.at(rec.path("lock")) {
		rec.lock.Unlock()
		return nil, fmt.Errorf("%q: was deleted while it was made", id)
	}
	return rec, nil
}

// open reads the record of id without its lock; os.ErrNotExist if there is none.
func (r *Runtime) open(id string) (*record, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	rec := &record{dir: filepath.Join(r.containers(), id)}
	if _, err := os.Stat(rec.dir); err != nil {
		return nil, &missingError{id}
	}
	return rec, rec.load()
}

// missingError is an id that no container has.
type missingError struct{ id string }

func (e *missingError) Error() string { return fmt.Sprintf("%q: no such container", e.id) }

// Is makes it an os.ErrNotExist.
func (e *missingError) Is(target error) bool { return target == os.ErrNotExist }

func (c *record) path(name string) string { return filepath.Join(c.dir, name) }

func (c *record) id() string { return filepath.Base(c.dir) }

// load reads state.json. A record that has none yet is being made, or was left by a start that was killed early.
func (c *record) load() error {
	c.state = recorded{State: State{ID: c.id(), Status: StatusCreating}}
	data, err := os.ReadFile(c.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return c.loadInit()
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &c.state); err != nil {
		return fmt.Errorf("%s: %w", c.path("state.json"), err)
	}
	if c.state.Version != recordVersion {
		return fmt.Errorf("%s: version %d, this nsinit knows %d; use the nsinit that made it", c.path("state.json"), c.state.Version, recordVersion)
	}
	if _, err := os.Stat(c.path("running")); err == nil {
		c.state.Status = StatusRunning
	}
	return nil
}

// setRunning says that the program runs. A file of its own is cheaper than the whole state once more.
func (c *record) setRunning() error {
	c.state.Status = StatusRunning
	return os.WriteFile(c.path("running"), nil, 0o600)
}

// saveInit writes down the init alone, whole or not at all: the rest of the state takes encoding/json longer to learn
// than the init takes for all its steps, and comes when they run.
func (c *record) saveInit() error {
	line := fmt.Sprintf("%d %d %s\n", c.state.Pid, c.state.StartTime, c.state.BootID)
	return writeFileWhole(c.path("init"), []byte(line), 0o600)
}

// loadInit reads what saveInit wrote, of a start that was killed before it has written more.
func (c *record) loadInit() error {
	data, err := os.ReadFile(c.path("init"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(data), &c.state.Pid, &c.state.StartTime, &c.state.BootID); err != nil {
		return fmt.Errorf("%s: %w", c.path("init"), err)
	}
	return nil
}

// save writes state.json whole or not at all. It isn't synced: the directory is gone with the boot anyway.
func (c *record) save() error {
	data, err := json.Marshal(&c.state)
	if err != nil {
		return err
	}
	return writeFileWhole(c.path("state.json"), append(data, '\n'), 0o600)
}

// journal appends o to the objects at path before it is made. One write(2) on O_APPEND: a line that is torn, by a kill or
// a full file system, is of an object that was never made; the next one begins with the line's end, and so is whole.
func journal(path string, o entry) error {
	line, err := encodeEntry(o)
	if err != nil {
		return err
	}
	gate.Change()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("record %s %s: %w", o.Kind, o.Name, err)
	}
	_, err = f.Write(append([]byte{'\n'}, line...))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("record %s %s: %w", o.Kind, o.Name, err)
	}
	return nil
}

// encodeEntry is json.Marshal for an entry of plain strings, without what that package has to learn of a type first:
// the cgroup is recorded before the init can be started.
func encodeEntry(o entry) ([]byte, error) {
	line := []byte("{")
	for _, field := range []struct{ name, value string }{
		{"kind", o.Kind},
		{"network", o.Network},
		{"name", o.Name},
		{"owner", o.Owner},
		{"dir", o.Dir},
		{"ifName", o.IfName},
		{"was", o.Was},
		{"attachment", o.Attachment},
	} {
		if o.Undone || !plainJSON(field.value) {
			return json.Marshal(o)
		}
		if field.value != "" {
			line = append(append(append(append(line, '"'), field.name...), `":"`...), field.value...)
			line = append(line, `",`...)
		}
	}
	return append(bytes.TrimSuffix(line, []byte(",")), '}'), nil
}

// plainJSON tells whether s stands for itself between the quotes of a JSON string.
func plainJSON(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// journal records an object of the container's own.
func (c *record) journal(o netsetup.Object) error {
	return journal(c.path("objects"), entry{Object: o})
}

// An entry is a line of a journal.
type entry struct {
	netsetup.Object
	Attachment string `json:"attachment,omitzero"` // the interface inside that it belongs to; "" = all of the container
	Undone     bool   `json:"undone,omitzero"`     // takes back an earlier line
}

// entries reads a journal, oldest first, each object once, without what was undone.
func entries(path string) ([]entry, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []entry
	for line := range bytes.Lines(data) { // of any length: a device may have had a thousand routes
		var e entry
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		same := func(other entry) bool { return other.Object == e.Object }
		switch {
		case e.Undone:
			list = slices.DeleteFunc(list, same)
		case !slices.ContainsFunc(list, same):
			list = append(list, e)
		}
	}
	return list, nil
}

// objects are those of a journal's entries.
func objects(path string) ([]netsetup.Object, error) {
	list, err := entries(path)
	var all []netsetup.Object
	for _, e := range list {
		all = append(all, e.Object)
	}
	return all, err
}

// holds tells whether o is in the journal at path. Most starts ask for what is there and was never undone, and needs no
// decoding to be found.
func holds(path string, o netsetup.Object) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	line, err := encodeEntry(entry{Object: o})
	if err != nil {
		return false, err
	}
	if !bytes.Contains(data, []byte(`"undone"`)) {
		return slices.ContainsFunc(bytes.Split(data, []byte("\n")), func(l []byte) bool { return bytes.Equal(l, line) }), nil
	}
	known, err := objects(path)
	return slices.Contains(known, o), err
}

// recorder writes what belongs to the container into its own journal, under the interface that it is for, and what
// belongs to a network into the host's.
func (r *Runtime) recorder(c *record, ifName string) netsetup.Recorder {
	return func(o netsetup.Object) error {
		if o.Owner != "" {
			return journal(c.path("objects"), entry{Object: o, Attachment: ifName})
		}
		known, err := holds(r.hostObjects(), o)
		if err != nil || known {
			return err
		}
		return journal(r.hostObjects(), entry{Object: o})
	}
}

// alive opens the container's init by pidfd and makes sure that it is no other process with the
// same number. It returns nil if the init is gone, reaped or not.
func (c *record) alive() (*os.File, error) {
	if c.state.Pid == 0 || c.state.BootID != bootID() {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(c.state.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", c.state.Pid, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// No start time: it ended meanwhile.
	if started, zombie, err := startTime(c.state.Pid); err == nil && !zombie && started == c.state.StartTime {
		return pidfd, nil
	}
	return nil, pidfd.Close()
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// startTime reads the start time of process pid in clock ticks since boot, and whether it has ended
// already (proc_pid_stat(5), fields 22 and 3).
func startTime(pid int) (ticks uint64, zombie bool, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	// The command in field 2 may hold spaces and brackets.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	_, err = fmt.Sscan(f[19], &ticks)
	return ticks, f[0] == "Z" || f[0] == "X", err
}
