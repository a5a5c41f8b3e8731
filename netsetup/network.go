package netsetup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Network is a CNI network configuration list (CNI spec 1.1, section 1).
type Network struct {
	CNIVersion string   // "0.1.0" where the file says nothing, as CNI has it
	Name       string   // letters, digits, "_", "." and "-"
	Plugins    []Plugin // at least one
	Source     string   // the file, or "built in"
	Warnings   []string // what is no fault, and still worth a line; nil: nothing

	DisableCheck bool // CHECK is not for this list: its plugins would find faults that are none
	DisableGC    bool // nor is GC: somebody else uses the plugins of this list with attachments of its own

	// OwnBridge says that the network is nsinit's default one behind `bridge`: its bridge is no other network's, so
	// that its subnets are masqueraded as a whole, and stay so, as the bridge does.
	OwnBridge bool

	ownSubnet bool // built by ParseFlag for the addresses asked for
}

// A Plugin is one plugin of a list, with its keys as they were written.
type Plugin struct {
	Type string
	Raw  []byte // the JSON object, checked: no key twice, none in another case, no NUL
}

const maxNetworkFile = 16 << 20

// LoadNetwork reads the list called name from the first of dirs that has it, or
// from a path if name holds a slash. A file of one plugin (.conf, .json) is a
// list of one, as for CNI's own tools. An error that no network has the name
// matches fs.ErrNotExist and says which there are.
func LoadNetwork(name string, dirs []string) (*Network, error) {
	if strings.Contains(name, "/") {
		return loadFile(name)
	}
	if err := CheckNetworkName(name); err != nil {
		return nil, faultf("network", name, "%w", err)
	}
	var search networkSearch
	for _, dir := range dirs {
		search.scan(dir, name)
	}
	if search.found == nil {
		return nil, search.notFound(name, dirs)
	}
	return search.found, search.err
}

// A networkSearch goes through directories; the first network of the name wins.
type networkSearch struct {
	found  *Network
	err    error    // found has faults
	names  []string // of the networks passed by
	faults []error  // files whose name can't be told
}

func (s *networkSearch) scan(dir, name string) {
	for _, file := range networkFiles(dir) {
		n, err := loadFile(file)
		switch {
		case n == nil:
			s.faults = append(s.faults, err)
		case n.Name != name:
			s.names = append(s.names, n.Name)
		case s.found == nil:
			s.found, s.err = n, err
		default:
			s.found.Warnings = append(s.found.Warnings,
				fmt.Sprintf("network %s: also in %s; %s is used, as the first", name, file, s.found.Source))
		}
	}
}

// networkFiles returns the files of dir that can hold networks, lists first, as
// CNI's library looks for them. A directory that isn't there has none.
func networkFiles(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var lists, plugins []string
	for _, e := range entries { // sorted by name
		switch filepath.Ext(e.Name()) {
		case ".conflist":
			lists = append(lists, filepath.Join(dir, e.Name()))
		case ".conf", ".json":
			plugins = append(plugins, filepath.Join(dir, e.Name()))
		}
	}
	return append(lists, plugins...)
}

func (s *networkSearch) notFound(name string, dirs []string) error {
	has := "no network there (*.conflist, *.conf, *.json)"
	slices.Sort(s.names)
	if s.names = slices.Compact(s.names); len(s.names) > 0 {
		has = "there: " + strings.Join(s.names, ", ")
	}
	where := strings.Join(dirs, ", ")
	if where == "" {
		where = "no directory"
	}
	err := fmt.Errorf("network %s: %w in %s; %s%s", quoted(name), errNoNetwork, where, has, didYouMean(name, s.names))
	return errors.Join(append([]error{err}, s.faults...)...)
}

// errNoNetwork reads better than "file does not exist", and matches it.
var errNoNetwork error = noNetwork{}

type noNetwork struct{}

func (noNetwork) Error() string        { return "not found" }
func (noNetwork) Is(target error) bool { return target == fs.ErrNotExist }

// loadFile reads one file. With a fault behind the name it returns both the
// network so far and the fault.
func loadFile(path string) (*Network, error) {
	src, err := readNetworkFile(path)
	if err != nil {
		return nil, err
	}
	n, err := parseNetwork(src, path)
	if err == nil && !n.inlinedOnly {
		err = n.addFolder(filepath.Dir(path))
	}
	if n == nil {
		return nil, err
	}
	return &n.Network, err
}

// readNetworkFile reads a regular file of at most 16 MiB; a FIFO doesn't stop it.
func readNetworkFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("network file %s: %w", quoted(path), errors.Unwrap(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("network file %s: %w", quoted(path), errors.Unwrap(err))
	}
	if !info.Mode().IsRegular() {
		return nil, faultf("network file", path, "not a regular file but %s", fileKind(info.Mode()))
	}
	src, err := io.ReadAll(io.LimitReader(f, maxNetworkFile+1))
	if err != nil {
		return nil, fmt.Errorf("network file %s: %w", quoted(path), err)
	}
	if len(src) > maxNetworkFile {
		return nil, faultf("network file", path, "more than 16 MiB; no network needs as much")
	}
	return src, nil
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// addFolder appends the plugins of the folder that stands beside the list and
// has its network's name, unless the list forbids it (loadOnlyInlinedPlugins).
func (n *parsedNetwork) addFolder(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, n.Name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: its folder of plugins: %w", n.Source, err)
	}
	var faults []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".conf" {
			continue
		}
		path := filepath.Join(dir, n.Name, e.Name())
		src, err := readNetworkFile(path)
		if err == nil {
			err = n.addPluginFile(src, path)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
