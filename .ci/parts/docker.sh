#!/bin/sh
# .parts/docker are Docker's engine and what it starts, and a static busybox to make an image of, from the system's own
# packages, unpacked and not installed: the tests start an engine of their own, and no other one is touched or started.
set -eu

cd "$(dirname "$0")/../.."
root=$PWD/.parts/docker
packages="docker.io containerd runc tini busybox-static"

works() {
    [ -x "$root/bin/busybox" ] && "$root/usr/sbin/dockerd" --version >/dev/null 2>&1 &&
        "$root/usr/bin/containerd" --version >/dev/null 2>&1 && "$root/usr/sbin/runc" --version >/dev/null 2>&1
}
works && exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "Docker's engine is fetched with apt-get and dpkg, which this machine has not." >&2
    echo "Put dockerd, containerd, runc, docker-init and docker-proxy into .parts/docker/usr/sbin instead," >&2
    echo "the docker command into .parts/docker/usr/bin, and a static busybox into .parts/docker/bin." >&2
    exit 1
}
apt-get -qq update
rm -rf "$root"
mkdir -p "$root/archives/partial"
(cd "$root/archives" && apt-get -qq -o APT::Sandbox::User= download $packages)
for package in "$root"/archives/*.deb; do
    dpkg -x "$package" "$root"
done
rm -rf "$root/archives"
# Their libraries are the system's: most machines have them already.
works || DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
    libdevmapper1.02.1 libseccomp2 libsystemd0
works
"$root/usr/sbin/dockerd" --version
