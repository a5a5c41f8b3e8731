package netsetup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Lack is a kind of device that networks can ask for and this kernel doesn't have.
type Lack struct {
	Kind   string // as ip(8) calls it
	Option string // the kernel's, as CONFIG_VLAN_8021Q
	Module string
	Use    string // what needs it
	Err    error  // what the kernel says
}

// Lacks tries to make a device of each kind in a network namespace of its own, which is gone
// with all of them afterwards.
func Lacks() (lacks []Lack, err error) {
	err = inNewNetNS(func() error {
		c, err := openRTNL()
		if err != nil {
			return err
		}
		defer c.close()
		parent := 0
		for _, l := range []Lack{
			{Kind: "veth", Option: "CONFIG_VETH", Module: "veth", Use: "networks of type bridge and ptp"},
			{Kind: "bridge", Option: "CONFIG_BRIDGE", Module: "bridge", Use: "networks of type bridge"},
			{Kind: "macvlan", Option: "CONFIG_MACVLAN", Module: "macvlan", Use: "networks of type macvlan"},
			{Kind: "ipvlan", Option: "CONFIG_IPVLAN", Module: "ipvlan", Use: "networks of type ipvlan"},
			{Kind: "vlan", Option: "CONFIG_VLAN_8021Q", Module: "8021q", Use: "networks of type vlan"},
			{Kind: "dummy", Option: "CONFIG_DUMMY", Module: "dummy", Use: "networks of type dummy"},
			{Kind: "vrf", Option: "CONFIG_NET_VRF", Module: "vrf", Use: "the plugin vrf"},
			{Kind: "ifb", Option: "CONFIG_IFB", Module: "ifb", Use: "egress limits of the plugin bandwidth"},
		} {
			if l.Err = c.probe(l.Kind, parent); l.Err != nil {
				lacks = append(lacks, l)
			} else if l.Kind == "veth" {
				parent, l.Err = c.probed(l.Kind)
			}
		}
		return nil
	})
	tun, tunErr := openRetry(unix.AT_FDCWD, "/dev/net/tun", unix.O_RDWR)
	if tunErr == nil {
		_ = unix.Close(tun)
	} else {
		lacks = append(lacks, Lack{Kind: "tap", Option: "CONFIG_TUN", Module: "tun", Use: "networks of type tap", Err: tunErr})
	}
	return lacks, err
}

func (c *rtnl) probed(kind string) (int, error) {
	l, err := c.linkByName("nsi" + kind)
	return l.index, err
}

// probe makes a device of a kind; parent is the index of one that others can stand on.
func (c *rtnl) probe(kind string, parent int) error {
	info, data := kindAttr(kind)
	request := []nl.NetlinkRequestData{ifinfo(0, 0, 0), nameAttr("nsi" + kind), info}
	switch kind {
	case "macvlan", "ipvlan", "vlan":
		if parent == 0 {
			return errors.New("not tried: there is no device to stand on")
		}
		request = append(request, nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))))
	}
	switch kind {
	case "vlan":
		data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(7))
	case "vrf":
		data.AddRtAttr(nl.IFLA_VRF_TABLE, nl.Uint32Attr(7))
	}
	err := c.addLink(request...)
	if kind == "ipvlan" && errors.Is(err, unix.EBUSY) {
		return nil // the macvlan has the device
	}
	if err != nil {
		return fmt.Errorf("make: %w", err)
	}
	return nil
}
