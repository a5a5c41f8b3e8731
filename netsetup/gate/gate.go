// Package gate has the places where the fault tests stop a start or end it. They are
// compiled in by the build tag nsinit_gates only; without it every call is to an
// empty function, of which the compiler leaves nothing.
//
// There are two kinds. Steps are stopped at by name, before and after (At). Changes
// of the kernel and of files that outlive the process are counted (Change), and the
// process ends itself before the one of a given number: a test that counts up until
// the process comes through has killed it between any two of them.
package gate
