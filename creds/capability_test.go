package creds

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
)

func TestDefaultCapabilities(t *testing.T) {
	t.Parallel()
	if defaultCaps != 0x800425fb {
		t.Errorf("the default is %#x", uint64(defaultCaps))
	}
	want := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_SETFCAP",
	}
	if got := DefaultCapabilities(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMergeCaps(t *testing.T) {
	t.Parallel()
	const last = capability.CAP_PERFMON // as on a kernel before 5.9
	full := capMask(1)<<(last+1) - 1
	ours := full &^ (1 << capability.CAP_SYS_RESOURCE)
	bit := func(caps ...capability.Cap) (m capMask) {
		for _, c := range caps {
			m |= 1 << uint(c)
		}
		return m
	}
	for name, c := range map[string]struct {
		add, drop  []string
		privileged bool
		ours, want capMask
		err        string
	}{
		"nothing":               {want: defaultCaps},
		"add":                   {add: []string{"NET_ADMIN"}, want: defaultCaps | bit(capability.CAP_NET_ADMIN)},
		"any form of a name":    {add: []string{"cap_net_Admin", "CAP_SYS_PTRACE", "mknod"}, want: defaultCaps | bit(capability.CAP_NET_ADMIN, capability.CAP_SYS_PTRACE, capability.CAP_MKNOD)},
		"add what is there":     {add: []string{"chown", "CHOWN"}, want: defaultCaps},
		"drop":                  {drop: []string{"chown"}, want: defaultCaps &^ 1},
		"drop what isn't there": {drop: []string{"SYS_ADMIN"}, want: defaultCaps},
		"drop what nobody has":  {drop: []string{"BPF", "SYS_RESOURCE"}, want: defaultCaps},
		"drop all":              {drop: []string{"all"}, want: 0},
		"drop all, add one":     {add: []string{"kill"}, drop: []string{"ALL"}, want: bit(capability.CAP_KILL)},
		"drop all and one":      {drop: []string{"ALL", "KILL"}, want: 0},
		"add all":               {add: []string{"All"}, want: ours},
		"add all and one":       {add: []string{"ALL", "KILL"}, want: ours},
		"add all, drop one":     {add: []string{"ALL"}, drop: []string{"KILL"}, want: ours &^ bit(capability.CAP_KILL)},
		"privileged":            {privileged: true, want: ours},
		"privileged, drop":      {privileged: true, drop: []string{"KILL"}, want: ours &^ bit(capability.CAP_KILL)},
		"privileged, drop all":  {privileged: true, drop: []string{"ALL"}, add: []string{"KILL"}, want: bit(capability.CAP_KILL)},
		"a default is missing":  {ours: full &^ bit(capability.CAP_NET_RAW), want: defaultCaps &^ bit(capability.CAP_NET_RAW)},
		"both":                  {add: []string{"KILL"}, drop: []string{"cap_kill"}, err: `"CAP_KILL": both added and dropped`},
		"both all":              {add: []string{"ALL"}, drop: []string{"all"}, err: `"ALL": both added and dropped`},
		"unknown":               {add: []string{"NET_ADMN"}, err: `"NET_ADMN": unknown; the nearest is NET_ADMIN`},
		"unknown, dropped":      {drop: []string{"CAP_SYSADMIN"}, err: `"CAP_SYSADMIN": unknown; the nearest is SYS_ADMIN`},
		"empty":                 {add: []string{""}, err: `"": unknown`},
		"prefix alone":          {add: []string{"CAP_"}, err: `"CAP_": unknown`},
		"a space":               {add: []string{"KILL "}, err: `"KILL ": unknown; the nearest is KILL`},
		"a number":              {add: []string{"5"}, err: `"5": unknown`},
		"the unnamed":           {add: []string{"unknown"}, err: `"unknown": unknown`},
		"newer than the kernel": {add: []string{"BPF"}, err: `"CAP_BPF": the running kernel doesn't have it, its last is CAP_PERFMON`},
		"not ours to give":      {add: []string{"SYS_RESOURCE"}, err: `"CAP_SYS_RESOURCE": not in the bounding set`},
	} {
		if c.ours == 0 {
			c.ours = ours
		}
		got, err := mergeCaps(baseCaps(c.privileged, c.ours), c.add, c.drop, c.ours, last)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: got %#x, %v, want %#x", name, uint64(got), err, uint64(c.want))
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: got %v, want %q", name, err, c.err)
		}
	}
}

// A further program starts from what its container has.
func TestChangeCapabilities(t *testing.T) {
	t.Parallel()
	base := []string{"CAP_KILL", "CAP_CHOWN"}
	for name, c := range map[string]struct{ add, drop, want []string }{
		"nothing asked": {want: []string{"CAP_CHOWN", "CAP_KILL"}},
		"all dropped":   {drop: []string{"ALL"}},
		"one dropped":   {drop: []string{"kill"}, want: []string{"CAP_CHOWN"}},
		"one for all":   {drop: []string{"all"}, add: []string{"Setuid"}, want: []string{"CAP_SETUID"}},
	} {
		got, err := ChangeCapabilities(base, c.add, c.drop)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(got.Bounding, c.want) || !slices.Equal(got.Effective, c.want) || len(got.Inheritable)+len(got.Ambient) > 0 {
			t.Errorf("%s: %+v, want %v", name, got, c.want)
		}
	}
	if _, err := ChangeCapabilities([]string{"CAP_NONSENSE"}, nil, nil); err == nil {
		t.Error("an unknown base was taken")
	}
}

func TestBoundingSetIsTheKernels(t *testing.T) {
	t.Parallel()
	ours, last, err := boundingSet()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if want := parseStatus(string(status))["CapBnd"]; mask(ours) != want {
		t.Errorf("got %s, want %s", mask(ours), want)
	}
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := strconv.Atoi(strings.TrimSpace(string(text))); int(last) != want {
		t.Errorf("last is %d, want %d", last, want)
	}
}

func TestCheckCapabilities(t *testing.T) {
	t.Parallel()
	kill, chown := []string{"CAP_KILL"}, []string{"CAP_CHOWN"}
	for name, c := range map[string]struct {
		sets *specs.LinuxCapabilities
		want string
	}{
		"none":                     {&specs.LinuxCapabilities{}, ""},
		"nil":                      {nil, "no sets"},
		"effective not permitted":  {&specs.LinuxCapabilities{Bounding: kill, Effective: kill}, `"CAP_KILL": in the effective set, but not in the permitted set`},
		"ambient not inheritable":  {&specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Ambient: kill}, `"CAP_KILL": in the ambient set, but not in the inheritable set`},
		"ambient not permitted":    {&specs.LinuxCapabilities{Bounding: kill, Inheritable: kill, Ambient: kill}, `"CAP_KILL": in the ambient set, but not in the permitted set`},
		"permitted not in bounds":  {&specs.LinuxCapabilities{Bounding: kill, Permitted: chown}, `"CAP_CHOWN": in the permitted set, but not in the bounding set`},
		"unknown":                  {&specs.LinuxCapabilities{Inheritable: []string{"CAP_KIL"}}, `inheritable: capability: "CAP_KIL": unknown; the nearest is KILL`},
		"ALL is no OCI capability": {&specs.LinuxCapabilities{Ambient: []string{"ALL"}}, `ambient: capability: "ALL": unknown`},
	} {
		err := CheckCapabilities(c.sets)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if caps, err := Capabilities(nil, nil, true); err != nil || CheckCapabilities(caps) != nil {
		t.Errorf("our own sets are refused: %v, %v", err, CheckCapabilities(caps))
	}
}

func FuzzCapabilities(f *testing.F) {
	f.Add("NET_ADMIN", "ALL", true)
	f.Add("cap_kill", "CAP_", false)
	f.Add("", "\x00", false)
	f.Add("ſYS_ADMIN", "KİLL", false) // letters that fold into ours
	f.Fuzz(func(t *testing.T, add, drop string, privileged bool) {
		const ours = 1<<41 - 1
		set, err := mergeCaps(baseCaps(privileged, ours), []string{add}, []string{drop}, ours, 40)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
				t.Errorf("%q is no line", err)
			}
			return
		}
		if c, ok := capNumber(add); ok && !set.has(c) {
			t.Errorf("%q isn't added: %#x", add, uint64(set))
		}
		if c, ok := capNumber(drop); ok && set.has(c) {
			t.Errorf("%q isn't dropped: %#x", drop, uint64(set))
		}
		for _, name := range set.names() {
			if c, ok := capNumber(name); !ok || !set.has(c) {
				t.Errorf("%s doesn't lead back", name)
			}
		}
	})
}

// The default container's two steps, on a thread that dies.
func BenchmarkCapabilities(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: sets capabilities")
	}
	caps, err := Capabilities(nil, nil, false)
	if err != nil {
		b.Fatal(err)
	}
	if err := onDyingThread(func() error {
		for b.Loop() {
			if err := DropBounding(caps.Bounding); err != nil {
				return err
			}
			if err := SetCapabilities(caps); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}
