// Package netsetup connects a network namespace to networks, directly over netlink:
// no ip, nft or iptables process is run.
//
// A network is a CNI network configuration list (LoadNetwork), or what a person
// writes behind --network (ParseFlag). A Request asks for one interface on it,
// PlanAll validates all requests of a container at once without asking the
// kernel, and a Strategy does the rest in two halves:
//
//	host side                                    inside the namespace
//	Plan       pure, every fault at once
//	Attach     makes the interface and puts it in  ->  Configure  name, settings, addresses, up, routes
//	Check      every difference to the kernel
//	Undo       what outlives the namespace, from its Object alone
//
// Only an Attachment passes from one half to the other. What Attach makes either
// dies with the namespace or is recorded as an Object first. The network is
// usable when Configure returns: carrier, no tentative address, routes.
//
// A Host and an Inside are one netlink socket each; one goroutine uses them.
// netns.go alone changes a thread's namespace. What this package needs at its
// own initialisation is next to nothing, since every container's init links it.
package netsetup
