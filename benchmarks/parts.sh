#!/bin/sh
# .parts/peers has nginx and Caddy from the system's own packages, unpacked and not installed: benchmarks/peers.py loads
# them beside HAProxy. Nothing but that benchmark needs them.
set -eu

cd "$(dirname "$0")/.."
root=$PWD/.parts/peers

[ -x "$root/usr/sbin/nginx" ] && [ -x "$root/usr/bin/caddy" ] && exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "nginx and Caddy are fetched with apt-get and dpkg, which this machine has not." >&2
    exit 1
}
rm -rf "$root"
mkdir -p "$root/archives"
(cd "$root/archives" && apt-get -qq -o APT::Sandbox::User= download nginx caddy)
for archive in "$root"/archives/*.deb; do
    dpkg -x "$archive" "$root"
done
rm -rf "$root/archives"
"$root/usr/sbin/nginx" -v
"$root/usr/bin/caddy" version
