// Package netsetuptest gives a test a machine of its own: a Host with network, mount, pid, ipc, uts and
// cgroup namespaces, fresh tmpfs on /run and /var/lib, and any number of further machines linked to it.
// It costs milliseconds, leaves nothing behind, and hosts don't see each other, so tests run in parallel.
//
//	h := netsetuptest.NewHost(t)           // skips where it can't be made (not root)
//	out := h.Outside(t)                    // a router behind the host's default routes
//	r := h.Run(t, "ip", "addr")            // r.Stdout, r.Stderr, r.Code
//	before := h.Snapshot(t)                // all of the host's kernel state, as text
//	...
//	h.Await(t, before)                     // polls, then fails with a diff
//
// A Host is held by the test binary itself, executed again (see init in holder.go) as process 1 of the
// new pid namespace. Everything in it dies with that process, and that process dies with the test's,
// killed or not. Sockets and commands are made from throw-away threads that enter its namespaces.
package netsetuptest
