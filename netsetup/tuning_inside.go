package netsetup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tune does what t says to the interface l but for what takes IPv6 away: that would
// hinder the addresses, and comes when they are there.
func (in *Inside) tune(l link, t *Tuning) error {
	if t == nil {
		return nil
	}
	for _, s := range t.Sysctls {
		if s.takesIPv6() {
			continue
		}
		if err := in.c.writeSysctl(s); err != nil {
			return err
		}
	}
	request, err := t.request(l.index)
	if err != nil || request == nil {
		return err
	}
	if err := in.c.setLink(request...); err != nil {
		return fmt.Errorf("set%s: %w", t.words(), err)
	}
	return nil
}

func (in *Inside) takeIPv6(t *Tuning) error {
	if t == nil {
		return nil
	}
	for _, s := range t.Sysctls {
		if s.takesIPv6() {
			if err := in.c.writeSysctl(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// request is the one that changes the device, nil if nothing of it is to change.
func (t *Tuning) request(index int) ([]nl.NetlinkRequestData, error) {
	info := ifinfo(index, 0, 0)
	request := []nl.NetlinkRequestData{info}
	if t.MAC != "" {
		mac, err := ParseMAC(t.MAC)
		if err != nil {
			return nil, fmt.Errorf("MAC %q: %w", t.MAC, err)
		}
		request = append(request, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	if t.MTU != 0 {
		request = append(request, mtuAttr(t.MTU))
	}
	if t.TxQLen != nil {
		request = append(request, nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(*t.TxQLen))))
	}
	setFlag(info, unix.IFF_PROMISC, t.Promisc)
	setFlag(info, unix.IFF_ALLMULTI, t.AllMulti)
	if len(request) == 1 && info.Change == 0 {
		return nil, nil
	}
	return request, nil
}

func setFlag(info *nl.IfInfomsg, flag uint32, on *bool) {
	if on == nil {
		return
	}
	info.Change |= flag
	if *on {
		info.Flags |= flag
	}
}

// writeSysctl writes s as the namespace of the calling thread has it.
func (c *rtnl) writeSysctl(s Sysctl) error {
	if err := c.writeSetting(s.Key, s.Value); err != nil {
		return fmt.Errorf("sysctl %s: set to %q: %w", s.Key, s.Value, err)
	}
	return nil
}

// readSysctl returns the value as words with one space between: the kernel has tabs.
func (c *rtnl) readSysctl(s Sysctl) (string, error) {
	fd, err := c.openSetting(s.Key, unix.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("sysctl %s: read: %w", s.Key, err)
	}
	defer unix.Close(fd)
	var buf [4096]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", fmt.Errorf("sysctl %s: read: %w", s.Key, err)
	}
	return words(string(buf[:n])), nil
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }

// A tunedBefore is what was before a tuning, and where.
type tunedBefore struct {
	NetNS uint64 `json:"netns"` // the namespace's inode
	Index int    `json:"index"` // the interface's
	Tuning
}

// tuned reads what t is going to change of the interface of a in n.
func (n *NetNS) tuned(a Attachment, t Tuning) (was tunedBefore, err error) {
	if was.NetNS, err = n.id(); err != nil {
		return was, err
	}
	err = n.Inside(func(in *Inside) error {
		return in.readTuned(&was, a, t)
	})
	return was, err
}

func (in *Inside) readTuned(was *tunedBefore, a Attachment, t Tuning) error {
	name := a.IfName
	if a.Arrived != "" && !a.Configured {
		name = a.Arrived
	}
	l, err := in.c.linkByName(name)
	if err != nil {
		return err
	}
	was.Index = l.index
	if t.MAC != "" {
		was.MAC = l.mac.String()
	}
	if t.MTU != 0 {
		was.MTU = l.mtu
	}
	if t.Promisc != nil {
		was.Promisc = promisc(l)
	}
	if t.AllMulti != nil {
		was.AllMulti = allMulti(l)
	}
	if t.TxQLen != nil {
		was.TxQLen = &l.txQLen
	}
	for _, s := range t.Sysctls {
		switch s.Value, err = in.c.readSysctl(s); {
		case errors.Is(err, fs.ErrNotExist) && name != a.IfName:
			continue // of the interface, which has another name yet; it ends with that
		case errors.Is(err, fs.ErrPermission):
			continue // one that can't be read can't be given back
		case err != nil:
			return err
		}
		was.Sysctls = append(was.Sysctls, s)
	}
	return nil
}

// undoTuning gives back what was before, if the namespace and the interface are still
// those of the record.
func undoTuning(o Object) error {
	var was tunedBefore
	if err := json.Unmarshal([]byte(o.Was), &was); err != nil {
		return fmt.Errorf("%s: %s: what was before the tuning: %w", o.Name, o.IfName, err)
	}
	return inRecorded(o, was.NetNS, func(in *Inside) error {
		var faults []error
		l, err := in.c.linkByName(o.IfName)
		if err == nil && l.index == was.Index {
			var request []nl.NetlinkRequestData
			if request, err = was.request(l.index); err == nil && request != nil {
				err = in.c.setLink(request...)
			}
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			faults = append(faults, fmt.Errorf("give back%s: %w", was.words(), err))
		}
		for _, s := range slices.Backward(was.Sysctls) {
			if err := in.c.writeSysctl(s); err != nil && !errors.Is(err, fs.ErrNotExist) {
				faults = append(faults, err)
			}
		}
		return errors.Join(faults...)
	})
}

// inRecorded runs f in the namespace that o names, unless that is gone or another
// one's, in which case there is nothing to undo.
func inRecorded(o Object, id uint64, f func(in *Inside) error) error {
	ns, err := OpenNetNS(o.Name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotNsfs) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	got, err := ns.id()
	if err != nil || got != id {
		return err
	}
	err = ns.Inside(func(in *Inside) error {
		return f(in)
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", o.Name, o.IfName, err)
	}
	return nil
}

// Check returns every difference between the tuning and the kernel.
func (tuning) Check(ctx context.Context, _ *Host, target *NetNS, _ Plan, conf any, a Attachment) ([]Difference, error) {
	t, ok := conf.(*Tuning)
	if err := ctx.Err(); err != nil || !ok {
		return nil, err
	}
	var c comparison
	err := target.Inside(func(in *Inside) error {
		if a.Tuning != nil { // with those of the list's other ones, which may have gone before
			return in.checkTuning(&c, a.IfName, *a.Tuning)
		}
		return in.checkTuning(&c, a.IfName, t.of(a.IfName))
	})
	return c.found, err
}

func (in *Inside) checkTuning(c *comparison, ifName string, t Tuning) error {
	for _, s := range t.Sysctls {
		got, err := in.c.readSysctl(s)
		if errors.Is(err, fs.ErrNotExist) {
			got, err = "none", nil
		}
		if err != nil {
			return err
		}
		c.differ("sysctl "+s.Key, words(s.Value), got)
	}
	l, err := in.c.linkByName(ifName)
	if errors.Is(err, unix.ENODEV) {
		c.differ(ifName, "an interface", "none")
		return nil
	}
	if err != nil {
		return err
	}
	if t.MAC != "" {
		c.differ(ifName+": MAC", t.MAC, l.mac.String())
	}
	if t.MTU != 0 {
		c.differ(ifName+": MTU", strconv.Itoa(t.MTU), strconv.Itoa(l.mtu))
	}
	if t.Promisc != nil {
		c.differ(ifName+": promiscuous", onOff(*t.Promisc), onOff(*promisc(l)))
	}
	if t.AllMulti != nil {
		c.differ(ifName+": all multicast", onOff(*t.AllMulti), onOff(*allMulti(l)))
	}
	if t.TxQLen != nil {
		c.differ(ifName+": transmit queue", strconv.Itoa(*t.TxQLen), strconv.Itoa(l.txQLen))
	}
	return nil
}
