// Package ipam gives containers their addresses: from the network's pool by
// the rules of the containernetworking plugins' host-local and in its on-disk
// store, or as written (static). Every address that it gives is a lease: a file of the name
// of the address below DIR/NETWORK, with the container's id and the interface in
// it, under the same lock as other tools' leases. So no two containers ever
// share an address, whoever started them.
package ipam
