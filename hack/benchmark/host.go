package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// bridge is the one that floor, script and CNI plugins use; nsinit makes its own.
// Its address is the gateway that floor.c knows.
const (
	bridge  = "bench0"
	gateway = "10.87.0.1"
	subnet  = "10.87.0.0/16"
)

// A host is the machine that the runs happen on: folders, a bridge, bundles.
type host struct {
	bin  string // nsinit, floor, cni/
	work string // what we make; removed at the end
	root string // a root file system of busybox
}

func prepare(bin string) (*host, error) {
	work, err := os.MkdirTemp("", "nsinit-bench-")
	if err != nil {
		return nil, err
	}
	h := &host{bin: bin, work: work, root: filepath.Join(work, "root")}
	for _, do := range []func() error{h.makeRoot, h.makeBridge, h.makeBundles, h.makeCNI} {
		if err := do(); err != nil {
			h.remove()
			return nil, err
		}
	}
	return h, nil
}

func (h *host) remove() { _ = os.RemoveAll(h.work) }

func (h *host) makeRoot() error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp", "var"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := command("cp", busybox, filepath.Join(h.root, "bin/busybox")); err != nil {
		return err
	}
	for _, applet := range []string{"true", "sh", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(h.root, "bin", applet)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(h.root, "etc/passwd"), []byte("root:x:0:0:root:/:/bin/sh\n"), 0o644)
}

func (h *host) makeBridge() error {
	for _, args := range []string{
		"link add " + bridge + " type bridge",
		"addr add " + gateway + "/16 dev " + bridge,
		"link set " + bridge + " up",
	} {
		if err := command("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return nil
}

// hold starts n containers on a network, that stay.
func (h *host) hold(name, network string, n int) error {
	for i := range n {
		args := []string{"run", "-d", "--name", fmt.Sprintf("%s%d", name, i), "--network", network, "--rootfs", h.root, "sleep", "100000"}
		c := exec.Command(h.nsinit(), args...)
		c.Stderr = os.Stderr // a pipe would stay open as long as the container lives
		if err := c.Run(); err != nil {
			return fmt.Errorf("nsinit %s: %w", strings.Join(args, " "), err)
		}
	}
	fmt.Printf("held on network %s: %d containers\n", filepath.Base(network), n)
	return nil
}

func (h *host) letGo(name string, n int) {
	for i := range n {
		_ = command(h.nsinit(), "delete", "--force", fmt.Sprintf("%s%d", name, i))
	}
}

func (h *host) nsinit() string { return filepath.Join(h.bin, "nsinit") }

func (h *host) cni(name string) string { return filepath.Join(h.bin, "cni", name) }

// command runs a program that has to succeed.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// printVersions says who takes part, on what kernel and cgroups.
func (h *host) printVersions() {
	fmt.Println("kernel:", firstLine("uname", "-sr"))
	fmt.Println("cgroups:", cgroupLayout())
	for _, peer := range [][]string{
		{h.nsinit(), "version"},
		{"crun", "--version"},
		{"runc", "--version"},
		{"bwrap", "--version"},
		{"unshare", "--version"},
		{"ip", "-V"},
	} {
		fmt.Printf("%s: %s\n", filepath.Base(peer[0]), firstLine(peer[0], peer[1:]...))
	}
	fmt.Println("cni plugins:", pluginsVersion())
}

func pluginsVersion() string {
	return firstLine("go", "list", "-m", "-f", "{{.Version}}", "github.com/containernetworking/plugins")
}

// cgroupLayout describes /sys/fs/cgroup as this process sees it.
func cgroupLayout() string {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err == nil {
		return fmt.Sprintf("unified alone, controllers: [%s]", strings.TrimSpace(string(controllers)))
	}
	mounted, _ := filepath.Glob("/sys/fs/cgroup/*")
	for i := range mounted {
		mounted[i] = filepath.Base(mounted[i])
	}
	return "hybrid or v1: " + strings.Join(mounted, " ")
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
