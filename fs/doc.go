// Package fs builds what a container sees as its file system, by descriptor on the new mount API and
// openat2, so that no path of the container is resolved outside its root, or twice.
//
// The init process, alone in a mount namespace of its own, calls in this order:
//
//	NewPty          the container's devpts and a terminal on it, where one is asked for
//	MakePrivate     nothing that follows reaches the host
//	Open            the root mount: a rootfs, or the host's root under a throwaway overlay
//	MountSystem     /proc, /sys, /sys/fs/cgroup, /dev
//	MountUser       volumes and tmpfs, in the user's order
//	WriteFiles      /etc/hosts and its like
//	Pivot           the root becomes the root, the host's goes
//	Restrict        read-only and masked paths
//	SetReadonly     the root itself
//
// # How mounts are made
//
// Every mount is made detached (fsopen and fsmount, or open_tree with OPEN_TREE_CLONE), gets its attributes
// there, and is then moved onto a descriptor of its target. The root itself is attached first, on top of "/"
// of the old root: before 6.15 nothing can be mounted inside a tree that is attached nowhere. From there on
// the targets below it are looked up by openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS; what is
// missing of them is made one component at a time, each by the descriptor of its parent.
//
// A tmpfs on the old root, the scratch, holds what must be attached somewhere but not be seen: upper
// directories of overlays, the contents of made files. It goes with the old root; what was mounted from it
// stays.
//
// The same code runs on every kernel from 6.1 (see CheckKernel).
package fs
