package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nsinit/nsinit/fs"
	"github.com/nsinit/nsinit/netsetup"
	"github.com/nsinit/nsinit/netsetup/ipam"
	"github.com/nsinit/nsinit/netsetup/policy"
)

// A Finding is one thing that the doctor has looked at.
type Finding struct {
	Check   string `json:"check"`
	Problem bool   `json:"problem"` // something will fail, or may; else it is only worth knowing
	Says    string `json:"says"`
	Remedy  string `json:"remedy,omitempty"`
}

// A doctor collects findings.
type doctor struct {
	*Runtime
	ctx        context.Context
	dirs       []string // of networks
	pluginDirs []string
	list       []Finding
}

// Doctor looks at what containers need of the host, and what earlier ones have left. It changes nothing.
// dirs hold networks, pluginDirs the plugins that they may name.
func (r *Runtime) Doctor(ctx context.Context, dirs, pluginDirs []string) []Finding {
	d := &doctor{Runtime: r, ctx: ctx, dirs: dirs, pluginDirs: pluginDirs}
	for _, look := range []func(*doctor){
		(*doctor).kernel, (*doctor).cgroups, (*doctor).devices, (*doctor).forwarding, (*doctor).foreign,
		(*doctor).networks, (*doctor).plugins, (*doctor).records, (*doctor).leases,
	} {
		look(d)
	}
	return d.list
}

func (d *doctor) ok(check, format string, args ...any) {
	d.list = append(d.list, Finding{Check: check, Says: fmt.Sprintf(format, args...)})
}

func (d *doctor) note(check, remedy, format string, args ...any) {
	d.list = append(d.list, Finding{Check: check, Says: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (d *doctor) problem(check, remedy, format string, args ...any) {
	d.list = append(d.list, Finding{Check: check, Problem: true, Says: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (d *doctor) kernel() {
	if os.Geteuid() != 0 {
		d.problem("root", "use sudo", "nsinit needs root: it makes namespaces and the host's network")
	}
	if err := fs.CheckKernel(); err != nil {
		d.problem("kernel", "boot a newer one", "%s", oneLine(err))
		return
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	d.ok("kernel", "Linux %s", strings.TrimSpace(string(release)))
}

func (d *doctor) cgroups() {
	root := cgroupRoot()
	if root == "" {
		d.problem("cgroups", "mount cgroup2 on /sys/fs/cgroup (systemd.unified_cgroup_hierarchy=1 on the kernel's command line), writable",
			"no unified hierarchy: containers have no cgroup of their own")
		return
	}
	d.ok("cgroups", "unified hierarchy at %s", root)
}

func (d *doctor) devices() {
	lacks, err := netsetup.Lacks()
	if err != nil {
		d.problem("devices", "", "%s", oneLine(err))
	}
	for _, l := range lacks {
		remedy := fmt.Sprintf("modprobe %s, or a kernel with %s", l.Module, l.Option)
		if l.Kind == "veth" || l.Kind == "bridge" {
			d.problem("devices", remedy, "no %s devices, which %s need (%s)", l.Kind, l.Use, oneLine(l.Err))
			continue
		}
		d.note("devices", remedy, "no %s devices, which only %s need", l.Kind, l.Use)
	}
	if len(lacks) == 0 && err == nil {
		d.ok("devices", "every kind that networks can ask for")
	}
}

func (d *doctor) forwarding() {
	s, err := policy.LookForwarding()
	if err != nil {
		d.problem("forwarding", "", "%s", oneLine(err))
		return
	}
	for _, family := range []struct {
		name, sysctl string
		on           bool
	}{{"IPv4", "net.ipv4.ip_forward", s.IPv4}, {"IPv6", "net.ipv6.conf.all.forwarding", s.IPv6}} {
		if family.on {
			d.ok("forwarding", "%s: on for the whole host", family.name)
			continue
		}
		d.note("forwarding", "nothing: networks that masquerade switch it on for the devices concerned, and nsinit gc --all undoes it; to have it on for all: sysctl -w "+family.sysctl+"=1",
			"%s: off", family.name)
	}
	d.advertisements(s)
	if s.BrNf {
		d.note("br_netfilter", "if containers of one bridge can't reach each other: sysctl -w net.bridge.bridge-nf-call-iptables=0, or rules that let them",
			"what goes from port to port of a bridge passes the host's firewall, too")
	}
}

func (d *doctor) advertisements(s policy.ForwardingState) {
	for _, name := range s.Losing {
		d.problem("routes", fmt.Sprintf("sysctl -w net.ipv6.conf.%s.accept_ra=2", strings.ReplaceAll(name, ".", "/")),
			"%s: its IPv6 routes came by router advertisements, which it ignores since it forwards: they will expire", name)
	}
	for _, name := range s.Advertised {
		if slices.Contains(s.Losing, name) {
			continue
		}
		if s.Force || s.IPv6 {
			d.ok("routes", "%s: IPv6 routes by router advertisements, which stay", name)
			continue
		}
		d.note("routes", "nothing: nsinit sets accept_ra=2 there first, and gc --all undoes it",
			"%s: IPv6 routes by router advertisements, and this kernel forwards IPv6 for all devices or none", name)
	}
}

func (d *doctor) foreign() {
	conflicts, err := policy.Foreign(d.ctx, nil)
	if err != nil {
		d.problem("firewall", "modprobe nf_tables, or a kernel with CONFIG_NF_TABLES", "%s", oneLine(err))
		return
	}
	bridges := []string{ipam.DefaultBridge}
	if list, err := d.Networks(d.dirs); err == nil {
		for _, n := range list {
			if n.Bridge != "" && n.Masquerade && !slices.Contains(bridges, n.Bridge) {
				bridges = append(bridges, n.Bridge)
			}
		}
	}
	for _, c := range conflicts {
		for _, device := range bridges {
			if slices.Contains(c.Named, device) {
				d.ok("firewall", "table %s %s, chain %s (%s) has rules for %s", c.Family, c.Table, c.Chain, c.Hook, device)
				continue
			}
			d.problem("firewall", strings.ReplaceAll(c.Remedy, "DEVICE", device), "table %s %s, chain %s (%s, %s) may drop what containers on %s send",
				c.Family, c.Table, c.Chain, c.Hook, c.Why, device)
		}
	}
	if len(conflicts) == 0 {
		d.ok("firewall", "no table of others drops what containers send")
	}
}

func (d *doctor) networks() {
	list, err := d.Networks(d.dirs)
	if err != nil {
		d.problem("networks", "", "%s", oneLine(err))
	}
	good := 0
	for _, n := range list {
		for _, f := range n.Faults {
			d.problem("networks", "correct the file, or take it away", "%s", f)
		}
		if n.Hidden != "" {
			d.note("networks", "give one of them another name", "%s: %s of the same name is found before", n.Source, n.Hidden)
		}
		if len(n.Faults) == 0 && n.Hidden == "" {
			good++
		}
	}
	d.ok("networks", "%d usable", good)
}

func (d *doctor) plugins() {
	for _, dir := range d.pluginDirs {
		entries, err := os.ReadDir(dir)
		switch {
		case errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0:
			d.note("plugins", "nothing, or install the plugins there", "none in %s: only types that nsinit doesn't have itself need one", dir)
		case err != nil:
			d.problem("plugins", "", "%s", oneLine(err))
		default:
			d.ok("plugins", "%d in %s, for types that nsinit doesn't have itself", len(entries), dir)
		}
	}
}

func (d *doctor) records() {
	states, err := d.List()
	if err != nil {
		d.problem("records", "", "%s", oneLine(err))
		return
	}
	running := 0
	for _, s := range states {
		switch s.Status {
		case StatusStopped:
			d.problem("records", fmt.Sprintf("nsinit delete %s, or nsinit gc for all that are like it", s.ID),
				"container %s has ended, and what it has on the host is still there", s.ID)
		case "unreadable":
			d.problem("records", fmt.Sprintf("use the nsinit that made it, or remove %s", d.containers()+"/"+s.ID), "container %s: its record can't be read", s.ID)
		default:
			running++
		}
	}
	d.ok("records", "%d containers run or are being started", running)
}

func (d *doctor) leases() {
	boot, err := ipam.BootTime()
	var stale []netsetup.Object
	if err == nil {
		stale, err = ipam.Stale(boot, func(id string) bool {
			_, err := os.Stat(d.containers() + "/" + id)
			return err == nil
		})
	}
	if err != nil {
		d.problem("leases", "", "%s", oneLine(err))
	}
	if len(stale) > 0 {
		d.problem("leases", "nsinit gc", "%d addresses of the default networks, as %s, are leased to containers of before the last boot", len(stale), stale[0].Name)
	}
}
