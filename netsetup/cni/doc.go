// Package cni holds the words of the Container Network Interface: results,
// errors and calls, as https://github.com/containernetworking/cni/blob/main/SPEC.md
// has them, in the versions 0.3.0 to 1.1.0.
//
// The project's own library would cost each start two milliseconds: it compiles
// regular expressions and brings a tracing library along. Tests hold this package
// to it.
package cni
