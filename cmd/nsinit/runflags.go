package main

import (
	"errors"
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nsinit/nsinit/creds"
	"github.com/nsinit/nsinit/netsetup"
)

func (r *runRequest) containerFlags() []flag {
	return []flag{
		{
			name: "name", arg: "NAME", set: text(&r.name, checkName),
			help: "the container's id (default: one is made up)",
		},
		{
			name: "rm", set: toggle(&r.rm),
			help: "understood for docker's sake: a foreground container leaves nothing anyway",
		},
		{
			name: "init", set: toggle(&r.init),
			help: "nsinit stays as process 1: it forwards signals and reaps orphans",
		},
		{
			name: "hostname", arg: "NAME", set: text(&r.hostname, checkHostname),
			help: "host name inside (default: the id)",
		},
		{
			name: "cgroup-parent", arg: "PATH", set: text(&r.cgroupParent, checkCgroupParent),
			help: "parent of the container's cgroup (default /nsinit)",
		},
		{
			name: "ulimit", arg: "NAME=SOFT[:HARD]", repeat: true, set: r.addUlimit,
			help: "resource limit, as nofile=1024:4096; -1 is unlimited",
		},
		{
			name: "sysctl", arg: "KEY=VALUE", repeat: true, set: r.addSysctl,
			help: "kernel setting of a namespace: net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*",
		},
	}
}

func (r *runRequest) fileFlags() []flag {
	return []flag{
		{
			name: "rootfs", arg: "DIR", set: checkRootfs(&r.rootfs),
			help: "root file system (default: the host's under a throwaway overlay)",
		},
		{
			name: "read-only", set: toggle(&r.readOnly),
			help: "write-protect the root file system",
		},
		{
			name: "volume", short: "v", arg: "SRC:DST[:OPTS]", repeat: true, set: appendTo(&r.mounts, parseVolume),
			help: "host file or directory; options ro, rw, bind, rbind, [no]exec, [no]suid, noatime, [r]private, [r]slave, [r]shared",
		},
		{
			name: "tmpfs", arg: "DST[:OPTS]", repeat: true, set: appendTo(&r.mounts, parseTmpfs),
			help: "temporary directory; options size=, nr_inodes=, mode=, uid=, gid=, ro, exec, suid",
		},
		{
			name: "shm-size", arg: "SIZE", set: r.setShmSize,
			help: "size of /dev/shm, with b, k, m or g (default 64m)",
		},
		{
			name: "no-pivot", set: toggle(&r.noPivot),
			help: "MS_MOVE and chroot in place of pivot_root, for a host that runs from an initramfs",
		},
	}
}

func (r *runRequest) networkFlags() []flag {
	return []flag{
		{
			name: "network", alias: "net", arg: "SPEC", repeat: true, set: r.addNetwork,
			help: "bridge, ptp, macvlan, ipvlan, vlan, dummy or tap, each with [:KEY=VALUE,...], ns:PATH, container:ID, none, host, or the name or path of a CNI network list; " +
				"repeated: eth0, eth1, ...",
		},
		{
			name: "net-device", arg: "DEVICE[:NAME]", repeat: true, set: r.addNetDevice,
			help: "move a network device of the host in, with its addresses, as NAME, where %d is a free number (default: as on the host); it comes home at the end",
		},
		{
			name: "network-config-dir", arg: "DIR", set: absolute(&r.networkConfigDir),
			help: "where CNI network lists are looked up (default " + networkConfigDir + ")",
		},
		pluginDirFlag(&r.pluginDirs),
		{
			name: "publish", short: "p", arg: "[[IP:][HOSTPORT]:]PORT[/PROTOCOL]", repeat: true, set: appendTo(&r.publish, parsePublish),
			help: "make a port of the container, or a range of them, reachable at the host; tcp, udp or sctp; without a host port a free one is chosen",
		},
		{
			name: "netns-name", arg: "NAME", set: text(&r.netnsName, checkName),
			help: "make the network namespace available to ip netns until the container is deleted",
		},
		{
			name: "no-forwarding", set: toggle(&r.noForwarding),
			help: "fail where the network would need the host's forwarding switched on",
		},
		{
			name: "dry-run", set: toggle(&r.dryRun),
			help: "print the commands of ip, nft and their like that would make the same network, as a script for sh, and do nothing",
		},
		{
			name: "dns", arg: "IP", repeat: true, set: appendTo(&r.dns.Nameservers, parseAddr),
			help: "resolver in place of the host's, at most 3",
		},
		{
			name: "dns-search", arg: "DOMAIN", repeat: true, set: appendTo(&r.dns.Search, parseSearch),
			help: "search domain, at most 6; a dot: none",
		},
		{
			name: "dns-option", arg: "OPTION", repeat: true, set: appendTo(&r.dns.Options, parseDNSOption),
			help: "option of resolv.conf, as ndots:2",
		},
		{
			name: "add-host", arg: "NAME:IP", repeat: true, set: appendTo(&r.addHosts, parseAddHost),
			help: "line of /etc/hosts; the IP host-gateway is the host as the container reaches it",
		},
	}
}

func (r *runRequest) securityFlags() []flag {
	return []flag{
		{
			name: "security-opt", arg: "OPTION", repeat: true, set: r.security.set,
			help: "apparmor=PROFILE, label=disable, label=user|role|type|level|filetype:VALUE, no-new-privileges[:true|false] (default true)",
		},
		{
			name: "userns", arg: "private|host", optional: usernsPrivate, set: r.setUserns,
			help: "a user namespace of the container's own; without maps, ids 0 to 65535 are the host's from 524288",
		},
		{
			name: "uidmap", arg: "CONTAINER:HOST[:SIZE]", repeat: true, set: appendTo(&r.uidMaps, parseIDMap),
			help: "user ids of the user namespace (default: as --gidmap)",
		},
		{
			name: "gidmap", arg: "CONTAINER:HOST[:SIZE]", repeat: true, set: appendTo(&r.gidMaps, parseIDMap),
			help: "group ids of the user namespace (default: as --uidmap)",
		},
	}
}

func (r *runRequest) addUlimit(s string) error {
	limit, err := creds.ParseUlimit(s)
	if err != nil {
		return &namedError{err}
	}
	for _, l := range r.rlimits {
		if l.Type == limit.Type {
			return errors.New("the limit is given twice")
		}
	}
	r.rlimits = append(r.rlimits, limit)
	return nil
}

func (r *runRequest) addSysctl(s string) error {
	setting, err := parseSysctl(s)
	if err != nil {
		return err
	}
	for _, other := range r.sysctls {
		if other.key == setting.key {
			return errors.New("the key is given twice")
		}
	}
	r.sysctls = append(r.sysctls, setting)
	return nil
}

func (r *runRequest) setShmSize(s string) (err error) {
	r.shmSize, err = parseSize(s)
	return err
}

// addNetwork keeps the value: it can be read when --network-config-dir is known.
func (r *runRequest) addNetwork(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	r.networks = append(r.networks, s)
	return nil
}

// addNetDevice takes a device as the OCI runtime specification's linux.netDevices have it.
func (r *runRequest) addNetDevice(s string) error {
	device, name, colon := strings.Cut(s, ":")
	if !colon {
		name = device
	} else if name == "" {
		return errors.New("no name behind the colon; leave both out for the one on the host")
	}
	if err := netsetup.CheckNetDevice(device, name); err != nil {
		return &namedError{err}
	}
	if _, twice := r.netDevices[device]; twice {
		return errors.New("the device is given twice")
	}
	if r.netDevices == nil {
		r.netDevices = make(map[string]specs.LinuxNetDevice)
	}
	r.netDevices[device] = specs.LinuxNetDevice{Name: name}
	return nil
}

// usernsPrivate is podman's word for a user namespace of the container's own.
const usernsPrivate = "private"

func (r *runRequest) setUserns(s string) error {
	if s != usernsPrivate && s != "host" {
		return fmt.Errorf("unknown; want %s or host", usernsPrivate)
	}
	r.userns = s == usernsPrivate
	return nil
}

// defaultIDMap is used without --uidmap and --gidmap: what root means inside, out of the range that is
// meant for containers (systemd's uid ranges, 0x80000 and up) and free of what useradd gives to users.
func defaultIDMap() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0x80000, Size: 0x10000}}
}

// idMaps are the maps of both kinds: one that isn't given is as the other.
func idMaps(uids, gids []specs.LinuxIDMapping) (u, g []specs.LinuxIDMapping) {
	switch {
	case len(uids)+len(gids) == 0:
		return defaultIDMap(), defaultIDMap()
	case len(uids) == 0:
		return gids, gids
	case len(gids) == 0:
		return uids, uids
	}
	return uids, gids
}
