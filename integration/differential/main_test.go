package differential

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nsinit/nsinit/netsetup/netsetuptest"
)

var (
	same   = flag.Bool("same", false, "compare the reference plugins with themselves")
	ways   = flag.String("by", "plugin,run", "compare nsinit called as a plugin, and as nsinit run --network")
	listed = flag.Bool("differences", false, "print every difference, those that stand as well")
)

// Folders with a program for each plugin type: the reference's, and links to nsinit.
var referenceDir, nativeDir string

// nsinitBin is the binary under test.
var nsinitBin string

// emulated says that this is the virtual machine, which only runs what the machine's own kernel may lack.
var emulated = os.Getenv("NSINIT_VM") != ""

func TestMain(m *testing.M) {
	flag.Parse()
	if emulated {
		netsetuptest.Patience = 2 * time.Minute
	}
	// Much of a case is waiting, for the kernel or for a packet that must not come.
	if f := flag.Lookup("test.parallel"); !isSet(f.Name) {
		_ = f.Value.Set(strconv.Itoa(4 * max(2, numCPU())))
	}
	dir, err := os.MkdirTemp("", "nsinit-differential-")
	if err == nil {
		err = prepare(dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "differential:", err)
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func numCPU() int {
	n := 0
	for line := range strings.Lines(readFile("/proc/cpuinfo")) {
		if strings.HasPrefix(line, "processor") {
			n++
		}
	}
	return n
}

func prepare(dir string) (err error) {
	if nsinitBin = os.Getenv("NSINIT_BIN"); nsinitBin == "" {
		nsinitBin = filepath.Join(dir, "nsinit")
		if err := build("", nsinitBin, "github.com/nsinit/nsinit/cmd/nsinit"); err != nil {
			return err
		}
	}
	if nsinitBin, err = filepath.Abs(nsinitBin); err != nil {
		return err
	}
	if referenceDir, err = reference(); err != nil {
		return err
	}
	if nativeDir = filepath.Join(dir, "native"); *same {
		nativeDir = referenceDir
		return nil
	}
	return linkPlugins(nativeDir)
}

// linkPlugins makes what `nsinit cni install` makes.
func linkPlugins(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	programs, err := os.ReadDir(referenceDir)
	for _, p := range programs {
		if err == nil {
			err = os.Symlink(nsinitBin, filepath.Join(dir, p.Name()))
		}
	}
	return err
}

const referenceModule = "github.com/containernetworking/plugins"

// reference returns the folder with the reference plugins, which are built at the first time from the module that go.mod
// names. NSINIT_CNI_PLUGINS is that folder, for a machine without Go.
func reference() (string, error) {
	if dir := os.Getenv("NSINIT_CNI_PLUGINS"); dir != "" {
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", referenceModule).Output()
	version, source, ok := strings.Cut(strings.TrimSpace(string(out)), " ")
	if err != nil || !ok {
		return "", fmt.Errorf("%s: %w", referenceModule, err)
	}
	dir := filepath.Join(cache, "nsinit-plugins", version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh := fmt.Sprintf("%s.%d", dir, os.Getpid())
	defer os.RemoveAll(fresh)
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		return "", err
	}
	if err := build(source, fresh+"/", "./plugins/main/...", "./plugins/meta/...", "./plugins/ipam/..."); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil && readFile(filepath.Join(dir, "bridge")) == "" { // another was faster
		return "", err
	}
	return dir, nil
}

// build builds packages, those of the module in source if that isn't "".
func build(source, out string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}, packages...)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %s: %w\n%s", packages[0], err, text)
	}
	return nil
}

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
