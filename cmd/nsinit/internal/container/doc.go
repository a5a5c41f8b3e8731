// Package container starts, joins, describes and removes containers: the host
// side of nsinit. Its other half, package inside, is the init.
package container
