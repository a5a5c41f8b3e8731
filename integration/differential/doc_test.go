// Package differential compares nsinit with the reference CNI plugins: the same configuration, given to both by
// libcni, each on a host of its own, has to leave the same state in the kernel and in the files, answer the same and
// fail alike. The configurations are in testdata, and what may differ is in ../../docs/differences.md, a line each,
// which fails when it no longer differs.
//
//	go test ./integration/differential                       # both
//	go test ./integration/differential -run 'Cases/bridge_'  # some
//	go test ./integration/differential -same                 # the reference with itself: what isn't normalised shows
package differential
