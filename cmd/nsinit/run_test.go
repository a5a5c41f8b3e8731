package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nsinit/nsinit/cmd/nsinit/internal/container"
)

// callerEnv is the environment that tests run in.
func callerEnv(name string) (string, bool) {
	switch name {
	case "GIVEN":
		return "by the caller", true
	case "HOME":
		return "/home/caller", true
	}
	return "", false
}

// parseRun parses the arguments of run, and starts nothing.
func parseRun(args ...string) (*container.Spec, error) {
	r := &runRequest{networkConfigDir: networkConfigDir}
	set := newFlagSet("run", false, append(r.groups(callerEnv), newApp().globalFlags(nil)))
	if err := set.parse(args); err != nil {
		return nil, err
	}
	if err := runVerb().checkArgs(set.args()); err != nil {
		return nil, err
	}
	return r.spec(set.args())
}

func TestBadRun(t *testing.T) {
	long := strings.Repeat("x", 300)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string // separated by blanks; the program is added
		want string
	}{
		{"--netwrok bridge", "--netwrok: unknown flag; did you mean --network?"},
		{"--netwrok=bridge", "--netwrok: unknown flag; did you mean --network?"},
		{"--zzzzzzzzzz", "--zzzzzzzzzz: unknown flag; see --help"},
		{"-x", "-x: unknown flag in -x; see --help"},
		{"-itx", "-x: unknown flag in -x; see --help"},
		{"--=x", `"--=x": no flag; a flag is -X or --NAME`},
		{"--tty=maybe", `--tty: "maybe": neither true nor false; form: --tty`},
		{"--name a --name b", `--name: "b": given twice, before as "a"; give it once; form: --name NAME`},
		{"--name", "PROGRAM missing; form: nsinit run [flags] [--] PROGRAM [ARGS...]"},

		{"--name=", `--name: "": empty; form: --name NAME`},
		{"--name ..", `--name: "..": begins with .`},
		{"--name ../x", `--name: "../x": begins with .`},
		{"--name a/b", `--name: "a/b": character '/'`},
		{"--name a\nb", `--name: "a\nb": character '\n'`},
		{"--name aé", `--name: "aé": character 'é'`},
		{"--name " + long, `--name: "` + long[:64] + `"...: 300 bytes; at most 255`},
		{"--name --tty", `--name: "--tty": begins with -`},

		{"--hostname=", `--hostname: "": empty part`},
		{"--hostname " + long[:65], `--hostname: "` + long[:64] + `"...: 65 bytes; at most 64`},
		{"--hostname a/b", `--hostname: "a/b": character '/'`},
		{"--hostname a..b", `--hostname: "a..b": empty part`},
		{"--hostname x\n0.0.0.0", `--hostname: "x\n0.0.0.0": character '\n'`},
		{"--hostname -x", `--hostname: "-x": part that begins with -`},

		{"--env =x", `--env: "=x": no name before =; form: --env NAME[=VALUE]`},
		{"--env=", `--env: "": no name before =`},
		{"--env HOME=/\nroot::0", `--env: "HOME=/\nroot::0": HOME holds a line end`},
		{"--env-file /nonexistent/file", `--env-file: "/nonexistent/file": no such file or directory; form: --env-file FILE`},
		{"--env-file " + dir, `is a directory`},
		{"--env-file " + file, `line 1: "=x": no name before =`},
		{"--user a:b:c", `the form is NAME|UID[:GROUP|GID]`},
		{"--workdir tmp", `--workdir: "tmp": not absolute; put / in front; form: --workdir DIR`},
		{"--workdir=", `--workdir: "": not absolute`},
		{"--pid-file /nonexistent/pid", `--pid-file: "/nonexistent/pid": directory "/nonexistent": no such file or directory; make it first`},
		{"--pid-file " + file + "/pid", `is no directory`},
		{"--cap-add NET_ADMN", `--cap-add: capability: "NET_ADMN": unknown; the nearest is NET_ADMIN`},
		{"--cap-add CHOWN,", `--cap-add: "CHOWN,": empty name`},
		{"--cap-add CHOWN --cap-drop CHOWN", `"CAP_CHOWN": both added and dropped`},
		{"--rm -d", "--rm: not with --detach"},
		{"--cgroup-parent /a/../b", `--cgroup-parent: "/a/../b": a part is empty, or goes up`},
		{"--ulimit nofle=1", `the nearest is nofile`},
		{"--ulimit nofile=2:1", `ulimit: "nofile=2:1"`},
		{"--ulimit core=1 --ulimit core=2", `--ulimit: "core=2": the limit is given twice`},

		{"--ulimit nofile=99999999999", `--ulimit: rlimit: RLIMIT_NOFILE: hard limit 99999999999 is above`},

		{"--sysctl net.ipv4.ip_forward", `--sysctl: "net.ipv4.ip_forward": no =`},
		{"--sysctl kernel.core_pattern=x", `belongs to the host, not to a namespace`},
		{"--sysctl kernel.shmmax=1+kernel.core_pattern=|/x", `character '+' in the value`},
		{"--sysctl net/../kernel/core_pattern=x", `empty part in the key`},
		{"--sysctl net.ipv4..x=1", `empty part in the key`},
		{"--sysctl net.ipv4.ip_forward=1\n", `character '\n' in the value`},
		{"--sysctl net.ipv4.ip_forward=", `no value`},
		{"--sysctl kernel.hostname=x", `use --hostname`},
		{"--sysctl net.ipv4.ip_forward=1 --sysctl net/ipv4/ip_forward=0", `the key is given twice`},

		{"--rootfs=", `--rootfs: "": empty; form: --rootfs DIR`},
		{"--rootfs /nonexistent", `--rootfs: "/nonexistent": no such file or directory; unpack the image there first; form: --rootfs DIR`},
		{"--rootfs nonexistent/x", `/cmd/nsinit/nonexistent/x": no such file or directory`},
		{"--rootfs " + file, `no directory; unpack the image into one`},
		{"--rootfs /", `the host's own root; leave --rootfs out`},
		{"--rootfs /tmp/..", `the host's own root; leave --rootfs out`},
		{"-v /tmp", `--volume: "/tmp": 1 parts`},
		{"-v /a:/b:ro:x", `--volume: "/a:/b:ro:x": 4 parts`},
		{"-v data:/b", `there are no named volumes; write ./data`},
		{"-v :/b", `no source`},
		{"-v /tmp:b", `the path inside, "b", isn't absolute`},
		{"-v /tmp:/", `the path inside is the root itself`},
		{"-v /tmp:/a/..", `the path inside is the root itself`},
		{"-v /tmp:/b:ro,rw", `options "ro" and "rw" contradict each other`},
		{"-v /tmp:/b:rshared,upperdir=/", `option "upperdir=/": unknown; one of ro, rw`},
		{"-v /tmp:/b:z,suid=1", `option "z": nothing is relabelled`},
		{"-v /tmp:/b:", `option "": empty`},
		{"-v /tmp:/b:dev", `option "dev": volumes have no devices`},
		{"-v /nonexistent/dir:/b", `--volume: "/nonexistent/dir": no such file or directory; make it first`},
		{"--tmpfs b", `the path inside, "b", isn't absolute`},
		{"--tmpfs /b:size=-1", `option "size=-1": want a number with b, k, m, g or t`},
		{"--tmpfs /b:size=abc", `option "size=abc": want a number`},
		{"--tmpfs /b:size=200%", `want a share of 1% to 100%`},
		{"--tmpfs /b:mode=9", `want an octal mode`},
		{"--tmpfs /b:uid=4294967295", `want a number, at most 4294967294`},
		{"--tmpfs /b:huge=always", `option "huge=always": unknown`},
		{"--tmpfs /b:exec,noexec", `contradict each other`},
		{"--shm-size 0", `--shm-size: "0": zero; form: --shm-size SIZE`},
		{"--shm-size 1x", `want a number`},
		{"--shm-size 9999999999999t", `too large`},

		{"--network=", `--network: "": empty; form: --network SPEC`},
		{"--netns-name a/b", `--netns-name: "a/b": character '/'`},
		{"--dns resolver", `--dns: "resolver": "resolver" is no IP address`},
		{"--dns 1.1.1.1 --dns 1.1.1.2 --dns 1.1.1.3 --dns 1.1.1.4", `--dns: 4 resolvers; resolv.conf holds 3`},
		{"--dns fe80::1%a/b", `"a/b" is no interface`},
		{"--dns-search a\nnameserver", `character '\n'`},
		{"--dns-option ndots\n2", `character '\n'`},
		{"--add-host name", `--add-host: "name": no address; form: --add-host NAME:IP`},
		{"--add-host x:1.2.3.4.5", `"1.2.3.4.5" is no IP address, nor host-gateway`},
		{"--add-host a\nb:1.2.3.4", `name: character '\n'`},
		{"--add-host a:1.2.3.4\n6.6.6.6", `is no IP address`},

		{"--security-opt apparmr=x", `--security-opt: "apparmr=x": unknown; one of apparmor=PROFILE`},
		{"--security-opt apparmor=", `no profile`},
		{"--security-opt no-new-privileges=1", `neither true nor false`},
		{"--security-opt label=typ:x", `"typ": no part of a label`},
		{"--security-opt label=type:", `want label=disable or label=PART:VALUE`},
		{"--security-opt label=type:x\n", `character '\n' in the label`},
		{"--security-opt label=disable --security-opt label=type:x", `contradict each other`},
		{"--security-opt seccomp=/x.json", `there are no seccomp profiles yet`},
		{"--userns=auto", `--userns: "auto": unknown; want private or host; form: --userns[=private|host]`},
		{"--uidmap 0:1000:1", `--uidmap, --gidmap: without --userns; add it`},
		{"--userns --uidmap 0", `not two or three numbers`},
		{"--userns --uidmap 0:1000:0", `a size of zero`},
		{"--userns --uidmap 0:-1:1", `"-1": not a number from 0 to 4294967294`},
		{"--userns --uidmap 0:4294967294:2", `ends above 4294967294`},
		{"--userns --uidmap 0:1000:10 --uidmap 5:2000:10", `--uidmap: 0:1000:10 and 5:2000:10 overlap in the container`},
		{"--userns --gidmap 0:1000:10 --gidmap 20:1009:10", `--gidmap: 0:1000:10 and 20:1009:10 overlap on the host`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			spec, err := parseRun(append(strings.Split(tt.args, " "), "true")...)
			if err == nil {
				t.Fatalf("taken: %+v", spec)
			}
			if line := oneLine(err.Error()); !strings.Contains(line, tt.want) {
				t.Errorf("error\n%s\nwant\n%s", line, tt.want)
			}
		})
	}
}

func TestRunSpec(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spec, err := parseRun("-it", "-e", "A=1", "-e", "GIVEN", "-e", "MISSING", "-e", "A=2", "--name", "web", "--hostname", "web.lan",
		"-v", dir+":/data:ro", "--tmpfs", "/tmp:size=64m,exec", "--read-only", "--rootfs", dir, "-u", "1000:1000", "-w", "/data",
		"--ulimit", "nofile=100:200", "--sysctl", "net/ipv4/conf/eth0.100/forwarding=1", "--dns", "1.1.1.1", "--add-host", "h:[fd00::1]",
		"--shm-size", "1g", "--userns", "--uidmap", "0:1000:1", "--security-opt", "no-new-privileges:false",
		"--security-opt", "label=level:s0:c1,c2", "--init", "--no-pivot", "--no-forwarding", "--privileged", "ls", "-e", "--", "-x")
	if err != nil {
		t.Fatal(err)
	}
	p := spec.OCI.Process
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"args", p.Args, []string{"ls", "-e", "--", "-x"}},
		{"env", lastOf(p.Env, 2), []string{"A=2", "GIVEN=by the caller"}},
		{"cwd", p.Cwd, "/data"},
		{"terminal", p.Terminal, true},
		{"no_new_privs", p.NoNewPrivileges, false},
		{"label", p.SelinuxLabel, "system_u:system_r:container_t:s0:c1,c2"},
		{"mount label", spec.OCI.Linux.MountLabel, "system_u:object_r:container_file_t:s0:c1,c2"},
		{"sysctl", spec.OCI.Linux.Sysctl["net.ipv4.conf.eth0/100.forwarding"], "1"},
		{"uids", spec.OCI.Linux.UIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}},
		{"gids", spec.OCI.Linux.GIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}},
		{"mounts", spec.OCI.Mounts, []specs.Mount{
			{Type: "bind", Source: dir, Destination: "/data", Options: []string{"rbind", "rprivate", "nodev", "ro"}},
			{Type: "tmpfs", Source: "tmpfs", Destination: "/tmp", Options: []string{"nosuid", "nodev", "size=67108864", "exec"}},
		}},
		{"root", *spec.OCI.Root, specs.Root{Path: dir, Readonly: true}},
		{"hosts", spec.AddHosts, []container.HostEntry{{Name: "h", IP: "fd00::1"}}},
		{"dns", spec.DNS.Nameservers, []string{"1.1.1.1"}},
		{"shm", spec.ShmSize, int64(1 << 30)},
		{"names", []string{spec.ID, spec.OCI.Hostname, spec.User}, []string{"web", "web.lan", "1000:1000"}},
		{
			"switches",
			[]bool{spec.Init, spec.NoPivot, spec.NoForwarding, spec.Privileged, spec.Interactive, spec.Overlay, spec.Detach},
			[]bool{true, true, true, true, true, false, false},
		},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
	i := slices.IndexFunc(p.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" })
	if i < 0 || p.Rlimits[i].Soft != 100 || p.Rlimits[i].Hard != 200 {
		t.Errorf("rlimits: %+v", p.Rlimits)
	}
}

func lastOf(list []string, n int) []string { return list[max(0, len(list)-n):] }

// A bare start asks for nothing but the program: the defaults are the runtime's.
func TestRunDefaults(t *testing.T) {
	t.Parallel()
	spec, err := parseRun("true")
	if err != nil {
		t.Fatal(err)
	}
	if !spec.Overlay || spec.OCI.Root.Path != "" || len(spec.Networks) != 0 || spec.OCI.Process.Capabilities == nil {
		t.Errorf("%+v", spec)
	}
	if !spec.OCI.Process.NoNewPrivileges {
		t.Error("no_new_privs is off")
	}
}
