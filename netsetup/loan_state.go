package netsetup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nsinit/nsinit/netsetup/gate"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A deviceState is what a device loses when it changes its namespace, and what a
// container may have changed. Addresses, routes and neighbours are the kernel's
// own messages: whatever they hold comes back.
type deviceState struct {
	Name       string        `json:"name"`
	Index      int           `json:"index"`
	Kind       string        `json:"kind,omitzero"`
	Flags      uint32        `json:"flags"`
	MTU        int           `json:"mtu"`
	TxQLen     int           `json:"txQLen"`
	MAC        []byte        `json:"mac,omitzero"`
	Alias      string        `json:"alias,omitzero"`
	AltNames   []string      `json:"altNames,omitzero"`
	Master     string        `json:"master,omitzero"`
	Settings   []loanSetting `json:"settings,omitzero"` // that differ from the host's for new devices
	Addresses  [][]byte      `json:"addresses,omitzero"`
	Routes     [][]byte      `json:"routes,omitzero"`
	Neighbours [][]byte      `json:"neighbours,omitzero"` // permanent ones
}

// A loanSetting is a file below /proc/sys/net: KIND is "ipv4/conf", "ipv6/neigh", ...
type loanSetting struct {
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// keptFlags are those of a device that people set.
const keptFlags = unix.IFF_UP | unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP | unix.IFF_MULTICAST | unix.IFF_DEBUG | unix.IFF_DYNAMIC

func (c *rtnl) deviceState(index int) (s deviceState, err error) {
	l, s, err := c.deviceLink(index)
	if err != nil {
		return s, err
	}
	if l.master != 0 {
		master, err := c.linkByIndex(l.master)
		if err != nil {
			return s, err
		}
		s.Master = master.name
	}
	if s.Addresses, err = c.addrMessages(index); err != nil {
		return s, fmt.Errorf("%s: list addresses: %w", s.Name, err)
	}
	if s.Routes, err = c.routeMessages(index); err != nil {
		return s, fmt.Errorf("%s: list routes: %w", s.Name, err)
	}
	if s.Neighbours, err = c.neighbourMessages(index); err != nil {
		return s, fmt.Errorf("%s: list neighbours: %w", s.Name, err)
	}
	s.Settings, err = ownSettings(s.Name)
	return s, err
}

// deviceLink reads what the kernel says of the device itself.
func (c *rtnl) deviceLink(index int) (l link, s deviceState, err error) {
	msg, err := c.get(unix.RTM_GETLINK, unix.RTM_NEWLINK, ifinfo(index, 0, 0), nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err != nil {
		return l, s, fmt.Errorf("device %d: look up: %w", index, err)
	}
	l = parseLink(msg)
	s = deviceState{
		Name: l.name, Index: l.index, Kind: l.kind, Flags: l.flags & keptFlags, MTU: l.mtu, MAC: l.mac, Alias: l.alias,
	}
	attrs(msg[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_TXQLEN:
			s.TxQLen = u32(v)
		case unix.IFLA_PROP_LIST:
			attrs(v, func(kind uint16, v []byte) {
				if kind == unix.IFLA_ALT_IFNAME {
					s.AltNames = append(s.AltNames, text(v))
				}
			})
		}
	})
	return l, s, nil
}

// settingKinds are the directories with one of a device in each. A kernel without IPv6
// lacks half of them.
func settingKinds() []string { return []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"} }

// ownSettings reads the settings that differ from what a new device gets. The order
// is the kernel's, in which none depends on a later one.
func ownSettings(name string) (list []loanSetting, err error) {
	for _, kind := range settingKinds() {
		dir := "/proc/sys/net/" + kind + "/"
		files, err := os.ReadDir(dir + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: settings: %w", name, err)
		}
		for _, f := range files {
			own, err := readSetting(dir + name + "/" + f.Name())
			if err != nil {
				continue // stable_secret can't be read before it was set
			}
			usual, err := readSetting(dir + "default/" + f.Name())
			if err != nil || own != usual {
				list = append(list, loanSetting{kind, f.Name(), own})
			}
		}
	}
	return list, nil
}

// readSetting reads one file of /proc/sys. An os.File would take twice as many system
// calls, and there are two hundred.
func readSetting(path string) (string, error) {
	fd, err := openRetry(unix.AT_FDCWD, path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var b [512]byte
	n, err := unix.Read(fd, b[:])
	return strings.TrimSuffix(string(b[:max(n, 0)]), "\n"), err
}

func (s loanSetting) path(device string) string {
	return "/proc/sys/net/" + s.Kind + "/" + device + "/" + s.Key
}

// write sets s, unless it is so already: some can only be read.
func (s loanSetting) write(device string) error {
	if have, err := readSetting(s.path(device)); err == nil && have == s.Value {
		return nil
	}
	gate.Change()
	return os.WriteFile(s.path(device), []byte(s.Value), 0)
}

const acceptDAD = "accept_dad"

// restore makes the device index what it was when it was lent. It can be killed and
// done again. What the kernel doesn't take any more is told, and the rest done.
func (h *Host) restore(index int, l *loan) error {
	s := &l.Device
	lost := func(what string, err error) {
		if err != nil {
			h.Warn(fmt.Sprintf("%s: came home without its %s: %v", s.Name, what, err))
		}
	}
	if err := h.restoreLink(index, s, lost); err != nil {
		return err
	}
	for _, set := range s.Settings {
		if set.Key != acceptDAD {
			lost("setting "+set.Kind+" "+set.Key, set.write(s.Name))
		}
	}
	dad, err := h.withoutDAD(s)
	lost("setting accept_dad", err)
	for _, raw := range backwardIPv6(s.Addresses) {
		if data := (revival{index: index, age: l.age()}).address(raw); data != nil {
			lost("address "+addrName(raw), existing(h.c.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)))
		}
	}
	if err := h.c.setLink(ifinfo(index, s.Flags, keptFlags)); err != nil {
		return fmt.Errorf("%s: set flags: %w", s.Name, err)
	}
	h.c.settle(index)
	lost("setting accept_dad", dad())
	h.restoreRoutes(index, l, lost)
	for _, raw := range s.Neighbours {
		lost("neighbour", existing(h.c.change(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_EXCL, neighbourAgain(raw, index)...)))
	}
	if err := h.c.setLink(ifinfo(index, 0, 0), aliasAttr(s.Alias)); err != nil {
		return fmt.Errorf("%s: set alias: %w", s.Name, err)
	}
	return nil
}

// restoreLink restores the device itself, which is down. A second time it is not, and
// has all of this.
func (h *Host) restoreLink(index int, s *deviceState, lost func(string, error)) error {
	now, state, err := h.c.deviceLink(index)
	if err != nil {
		return err
	}
	if state.MTU != s.MTU {
		lost("MTU", h.c.setLink(ifinfo(index, 0, 0), mtuAttr(s.MTU)))
	}
	if !slices.Equal(state.MAC, s.MAC) && len(s.MAC) > 0 {
		lost("MAC address "+net.HardwareAddr(s.MAC).String(), h.c.setLink(ifinfo(index, 0, 0), nl.NewRtAttr(unix.IFLA_ADDRESS, s.MAC)))
	}
	if state.TxQLen != s.TxQLen {
		lost("queue's length", h.c.setLink(ifinfo(index, 0, 0), nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(s.TxQLen)))))
	}
	for _, name := range s.AltNames {
		if !slices.Contains(state.AltNames, name) {
			props := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
			props.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name))
			lost("name "+name, h.c.change(unix.RTM_NEWLINKPROP, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND, ifinfo(index, 0, 0), props))
		}
	}
	if s.Master != "" && now.master == 0 {
		master, err := h.c.linkByName(s.Master)
		if err == nil {
			err = h.c.setLink(ifinfo(index, 0, 0), nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(master.index))))
		}
		lost("master "+s.Master, err)
	}
	return nil
}

// withoutDAD has the kernel take the device's IPv6 addresses as they are: they were
// the host's, and a route can't have a source that is still looked at. The function
// that it returns gives the setting back.
func (h *Host) withoutDAD(s *deviceState) (back func() error, err error) {
	was := loanSetting{"ipv6/conf", acceptDAD, ""}
	if was.Value, err = readSetting(was.path("default")); err != nil {
		return func() error { return nil }, notThere(err) // no IPv6 in this kernel
	}
	for _, set := range s.Settings {
		if set.Kind == was.Kind && set.Key == acceptDAD {
			was = set
		}
	}
	off := loanSetting{was.Kind, was.Key, "0"}
	back = func() error {
		return notThere(was.write(s.Name)) // a device with a small MTU has none
	}
	return back, notThere(off.write(s.Name))
}

// notThere is err unless it says that there is no such file.
func notThere(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

const (
	settleLimit = 2 * time.Second
	settlePause = 500 * time.Microsecond
)

// settle waits until a worker of the kernel has seen that no address needs to be
// looked at.
func (c *rtnl) settle(index int) {
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(settlePause) {
		addrs, err := c.addrs(index)
		if err != nil || !slices.ContainsFunc(addrs, ifaddr.tentative) {
			return
		}
	}
}

// existing is err unless it says that the object is there.
func existing(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
