package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/cni"
	"golang.org/x/sys/unix"
)

// A call is what the runtime asks (SPEC, section 2).
type call struct {
	command string // ADD, CHECK, DEL, GC, STATUS, VERSION
	id      string // CNI_CONTAINERID
	netns   string // CNI_NETNS, a path
	ifName  string // CNI_IFNAME
	args    map[string]string
	kind    kind
	conf    config
	raw     []byte // the configuration as it came
}

// A config is what every plugin's configuration has.
type config struct {
	CNIVersion string              `json:"cniVersion"`
	Name       string              `json:"name"`
	Type       string              `json:"type"`
	IPAM       json.RawMessage     `json:"ipam"`
	PrevResult json.RawMessage     `json:"prevResult"`
	Valid      *[]cni.AttachmentID `json:"cni.dev/valid-attachments"`
	OldValid   *[]cni.AttachmentID `json:"cni.dev/attachments"` // as the specification first called them
}

const maxConfig = 16 << 20

// version is the configuration's, or the oldest where it has none.
func (c *call) version() string {
	if c == nil || c.conf.CNIVersion == "" {
		return "0.1.0"
	}
	return c.conf.CNIVersion
}

func readCall(name string, env func(string) string, stdin io.Reader) (*call, error) {
	c := &call{command: env("CNI_COMMAND"), id: env("CNI_CONTAINERID"), netns: env("CNI_NETNS"), ifName: env("CNI_IFNAME")}
	if err := c.checkEnv(); err != nil {
		return c, err
	}
	var err error
	if c.raw, err = io.ReadAll(io.LimitReader(stdin, maxConfig)); err != nil {
		return c, cni.Errorf(cni.CodeIO, "error reading from stdin: %v", err)
	}
	if err := json.Unmarshal(c.raw, &c.conf); err != nil {
		if c.command == "VERSION" && len(c.raw) == 0 {
			return c, nil
		}
		return c, cni.Errorf(cni.CodeDecoding, "the configuration on stdin: %v", err)
	}
	if c.command == "VERSION" {
		return c, nil
	}
	if c.kind = kindOf(c.conf.Type); kindOf(name) == address {
		c.kind = address // called by the plugin whose configuration this is
	}
	if c.args, err = readArgs(env("CNI_ARGS")); err != nil {
		return c, err
	}
	return c, c.checkConfig()
}

// checkEnv wants what the command needs, all of what is missing in one answer.
func (c *call) checkEnv() error {
	const needID, needNS, needIf = 1, 2, 4
	needs, ok := map[string]int{
		"ADD": needID | needNS | needIf, "CHECK": needID | needNS | needIf, "DEL": needID | needIf,
		"GC": 0, "STATUS": 0, "VERSION": 0,
	}[c.command]
	if !ok {
		return cni.Errorf(cni.CodeInvalidEnvironment, "unknown CNI_COMMAND: %.64q; one of ADD, CHECK, DEL, GC, STATUS, VERSION", c.command)
	}
	var missing []string
	for _, need := range []struct {
		bit  int
		name string
		has  string
	}{{needID, "CNI_CONTAINERID", c.id}, {needNS, "CNI_NETNS", c.netns}, {needIf, "CNI_IFNAME", c.ifName}} {
		if needs&need.bit != 0 && need.has == "" {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		return cni.Errorf(cni.CodeInvalidEnvironment, "required env variables [%s] missing", strings.Join(missing, ","))
	}
	if needs&needID != 0 {
		if err := cni.CheckContainerID(c.id); err != nil {
			return cni.Errorf(cni.CodeInvalidEnvironment, "CNI_CONTAINERID: %.64q: %v", c.id, err)
		}
	}
	if needs&needIf != 0 && c.ifName != "lo" { // loopback's; no other plugin takes it
		if err := netsetup.CheckIfName(c.ifName); err != nil {
			return cni.Errorf(cni.CodeInvalidEnvironment, "CNI_IFNAME: %.64q: %v", c.ifName, err)
		}
	}
	return nil
}

// readArgs reads CNI_ARGS: KEY=VALUE;...
func readArgs(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	args := make(map[string]string)
	for pair := range strings.SplitSeq(text, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(value, "=") {
			return nil, cni.Errorf(cni.CodeInvalidEnvironment, "CNI_ARGS: invalid pair %.64q; KEY=VALUE;...", pair)
		}
		args[key] = value
	}
	// Kubernetes' own, which say nothing to a plugin.
	for key := range args {
		if strings.HasPrefix(key, "K8S_POD_") {
			delete(args, key)
		}
	}
	return args, nil
}

func (c *call) checkConfig() error {
	if !cni.Known(c.version()) {
		return &cni.Error{
			Code: cni.CodeIncompatibleVersion, Msg: "incompatible CNI versions",
			Details: fmt.Sprintf("config is %q, plugin supports %q", c.version(), cni.Versions()),
		}
	}
	since := map[string]string{"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}[c.command]
	if since != "" && !cni.AtLeast(c.version(), since) {
		return cni.Errorf(cni.CodeIncompatibleVersion, "config version does not allow %s; it came with %s", c.command, since)
	}
	if c.conf.Valid == nil {
		c.conf.Valid = c.conf.OldValid
	}
	if c.command == "GC" && c.conf.Valid == nil { // none valid would be a list, and nothing must not end all
		return cni.Errorf(cni.CodeInvalidConfig, "cni.dev/valid-attachments: missing; GC has to be told which attachments stay")
	}
	if err := netsetup.CheckNetworkName(c.conf.Name); err != nil {
		return cni.Errorf(cni.CodeInvalidConfig, "name: %.64q: %v", c.conf.Name, err)
	}
	if c.kind == unknown {
		return cni.Errorf(cni.CodeInvalidConfig, "type: %.64q: nsinit has no such plugin", c.conf.Type)
	}
	return nil
}

// openNetNS opens the container's namespace, which must not be the host's.
func (c *call) openNetNS() (*netsetup.NetNS, error) {
	if !filepath.IsAbs(c.netns) {
		return nil, cni.Errorf(cni.CodeInvalidNetNS, "CNI_NETNS: %.200q: not an absolute path", c.netns)
	}
	ns, err := openForeign(c.netns)
	if err != nil {
		return nil, cni.Errorf(cni.CodeInvalidNetNS, "CNI_NETNS: %v", err)
	}
	return ns, nil
}

// errOwn is of a namespace that is no container's.
var errOwn = errors.New("the network namespace that the plugin itself is in")

// openForeign opens a namespace other than ours.
func openForeign(path string) (*netsetup.NetNS, error) {
	ns, err := netsetup.OpenNetNS(path)
	if err != nil {
		return nil, err
	}
	there, err := ns.Inode()
	if err == nil {
		var own unix.Stat_t
		if err = unix.Stat("/proc/thread-self/ns/net", &own); err == nil && own.Ino == there {
			err = fmt.Errorf("%s: %w", path, errOwn)
		}
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// withoutWord leaves out "nsinit": "exec" of a plugin that was run for it: it would run
// itself.
func withoutWord(raw []byte) []byte {
	var conf map[string]json.RawMessage
	if !netsetup.RunsPlugin(netsetup.Plugin{Raw: raw}) || json.Unmarshal(raw, &conf) != nil {
		return raw
	}
	delete(conf, "nsinit")
	if less, err := json.Marshal(conf); err == nil {
		return less
	}
	return raw
}

// request is what the call asks of its network. The configuration may be of a plugin
// behind the first: then the plan is only what that one is told.
func (c *call) request() netsetup.Request {
	n := &netsetup.Network{
		CNIVersion: c.version(), Name: c.conf.Name, Source: "network " + c.conf.Name,
		Plugins: []netsetup.Plugin{{Type: c.conf.Type, Raw: withoutWord(c.raw)}},
	}
	ifName := c.ifName
	if c.conf.Type == "loopback" {
		ifName = "lo" // whatever the runtime calls it
	}
	return netsetup.Request{
		Network: n, Strategy: c.conf.Type, IfName: ifName, Source: "network " + c.conf.Name,
		Owner: c.id, Joined: true, Unasked: c.command == "GC" || c.command == "STATUS", Runtime: netsetup.Runtime{Args: c.args},
	}
}

// valid tells whether a GC call wants the attachment kept, of which ifName may be
// unknown ("").
func (c *call) valid(id, ifName string) bool {
	return slices.ContainsFunc(*c.conf.Valid, func(v cni.AttachmentID) bool {
		return v.ContainerID == id && (v.IfName == ifName || ifName == "")
	})
}
