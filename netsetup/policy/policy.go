// Package policy applies what a network asks of the host's firewall and forwarding,
// over nftables by netlink, in a table of nsinit's own.
//
// What is done is done only as far as it is needed:
//
//   - Masquerade lets containers out with the host's address. A container is one
//     element of a set, so that the thousandth start costs what the first did, and
//     its end is the removal of that element. A network with a bridge of its own is
//     one for all its containers.
//   - Where the host doesn't forward, forwarding is switched on for the devices
//     concerned, and packets that are forwarded for that reason only, but are none
//     of a container, are dropped. What the host had before is written down first,
//     in host.json of the state directory, and UndoHost gives it back.
//   - Resolver makes a resolver that listens on the host's loopback usable at the
//     address of the gateway.
//
// Tables of others are read (Foreign), never changed. No program is run. Everything
// works on the network namespace of the calling thread, which is the host's.
package policy

import "github.com/nsinit/nsinit/netsetup"

// Options are the user's wishes.
type Options struct {
	// NoForwarding refuses, by an error that names the sysctl, where the host's
	// forwarding would have to be changed.
	NoForwarding bool
	// StateDir is where changes to the host that outlive containers are recorded
	// (host.json, and its lock host.lock). It must exist. It is only touched when
	// something of the host is changed.
	StateDir string
	// Recorded returns what the records of all containers hold of this package's
	// kinds. It is asked when the table has to be made, so that after a flush of the
	// host's ruleset the containers that run get their rules back as well, not only
	// the one that starts. Nil: only that one.
	Recorded func() ([]netsetup.Object, error)
	// RuntimeListens says that a port to be published may well have a program that listens there: the container's
	// own runtime, as podman's does to hold the port. Other containers of nsinit are kept off all the same.
	RuntimeListens bool

	noForce bool // tests: as if the kernel were older than 6.17
}

// The kinds of Object that this package records.
const (
	// KindMasquerade has in Name the address of a container, with the device that
	// carries its network in IfName; or in Name a device that dies with the
	// container (point-to-point), with IfName empty; or in Name a subnet of a
	// network whose bridge, in IfName, is its own: then Owner is empty.
	KindMasquerade = "masquerade"
	// KindResolver has in Name "ADDRESS@GATEWAY>RESOLVER:PORT", with the device in
	// IfName; or in Name a device that dies with the container, with IfName empty.
	KindResolver = "resolver"
	// KindPort has in Name ports of the host that are the container's, as
	// "HOST:PORTS/PROTOCOL"; HOST is * for all addresses.
	KindPort = "port"
	// KindPortmap has in Name the same, with ">ADDRESS:PORT" for where they lead.
	KindPortmap = "portmap"
	// KindHairpin has in Name a container's address with the length of the prefix that
	// reaches its published ports by way of the host; and in IfName a device that
	// route_localnet is set for.
	KindHairpin = "hairpin"
)
