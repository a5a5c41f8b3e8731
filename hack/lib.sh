# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

set -euo pipefail
self=$(realpath "$0")
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
out=$root/build # everything that the scripts make; git ignores it
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
export self caller root out

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# usage SCRIPT prints the comment at the script's head.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"; }

# tool NAME ARGS... runs a tool at the version that hack/tools/go.mod pins.
tool() { go tool -modfile="$root/hack/tools/go.mod" "$@"; }

# cores is how many jobs run at once.
cores() { nproc; }

# go_packages lists the packages with Go files, whole import paths, one a line.
go_packages() { go list ./...; }

# unit_packages lists those whose tests don't run the built binary.
unit_packages() { go_packages | grep -v '/integration\(/\|$\)'; }

# tested_packages lists those of unit_packages that have tests.
tested_packages() {
	unit_packages | xargs go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}'
}

# sandbox COMMAND... runs it, as root, in a network and mount namespace of its
# own with empty state directories, so that not even a broken test can touch
# the machine's network, mounts or leases.
sandbox() {
	# shellcheck disable=SC2016
	unshare --net --mount --propagation private -- bash -c '
		ip link set lo up
		for dir in /run /var/lib/nsinit /var/lib/cni; do
			mkdir -p "$dir"
			mount -t tmpfs -o mode=755 tmpfs "$dir"
		done
		exec "$@"' sandbox "$@"
}

# build_static ARCH OUTPUT [GO FLAGS...] builds nsinit as it is released.
build_static() {
	local arch=$1 output=$2
	shift 2
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -ldflags '-s -w' "$@" -o "$output" ./cmd/nsinit
}

# build_plugins FOLDER builds the reference plugins, and CNI's tool, from the modules that go.mod names.
build_plugins() {
	local module
	mkdir -p "$1"
	# A module has no folder to build in before it was downloaded once.
	go mod download github.com/containernetworking/plugins github.com/containernetworking/cni
	module=$(go list -m -f '{{.Dir}}' github.com/containernetworking/plugins)
	CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -C "$module" -trimpath -ldflags '-s -w' -o "$1/" \
		./plugins/main/... ./plugins/meta/... ./plugins/ipam/...
	module=$(go list -m -f '{{.Dir}}' github.com/containernetworking/cni)
	CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -C "$module" -trimpath -ldflags '-s -w' -o "$1/" ./cnitool
}

# assert_static FILE fails unless the ELF file has no interpreter and needs no library.
assert_static() {
	local headers
	headers=$(readelf --wide --program-headers --dynamic "$1")
	if grep -qE 'INTERP|\(NEEDED\)' <<<"$headers"; then
		die "$1: not a static binary"
	fi
}
