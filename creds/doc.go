// Package creds sets who a process is and what it may do: user and groups, capabilities,
// no_new_privs, resource limits, inherited descriptors.
//
// What is set belongs to one thread (credentials(7), capabilities(7), prctl(2)), and here it is
// set on the calling thread only, by raw system calls: the wrappers of package syscall stop the
// world to change every thread, which a process that is about to execute a program doesn't need. The caller
// has locked its goroutine to the thread, and executes from it or lets it die. Resource limits and
// descriptors belong to the whole process.
//
// The order that works, each step needing privileges that a later one gives up:
//
//	SetRlimits      raising a hard limit takes CAP_SYS_RESOURCE
//	DropBounding    takes CAP_SETPCAP
//	CloseOnExec
//	SetUser         groups, gid, uid; permitted capabilities are kept
//	SetCapabilities
//	SetNoNewPrivs
//
// Everything that is set is read back: a difference is an error, never a warning.
//
// Flags and specifications are checked on the host side, before anything is touched: ParseUser,
// Capabilities, CheckCapabilities, ParseUlimit, CheckRlimits.
package creds
