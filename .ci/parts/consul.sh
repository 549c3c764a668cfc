#!/bin/sh
# .parts/consul is Consul 1.8.7 from Debian's bullseye suite, unpacked and not installed: the oracle of the
# contract suite. The suite's package list is kept in .parts, apart from the system's own.
set -eu

cd "$(dirname "$0")/../.."
version=1.8.7
root=$PWD/.parts
home=$root/consul-$version
apt=$root/apt-bullseye

if [ -x "$root/consul" ] && "$root/consul" version | grep -q "v$version"; then
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "Consul $version is fetched with apt-get and dpkg, which this machine has not." >&2
    echo "Set MILKRUN_CONSUL to the path of a Consul $version binary instead." >&2
    exit 1
}

# The mirror is whichever one this machine takes Debian's main archive from.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "main" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || {
    echo "This machine has no apt source of Debian's main archive with a package list; run apt-get update." >&2
    exit 1
}

rm -rf "$apt" "$home"
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$home"
: >"$apt/status"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror bullseye main" >"$apt/sources.list"

in_bullseye() {
    apt-get -qq \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" -o APT::Sandbox::User= "$@"
}
in_bullseye update
(cd "$apt/archives" && in_bullseye download "consul=$version*")
dpkg -x "$apt"/archives/consul_*.deb "$home"
ln -sfn "consul-$version/usr/bin/consul" "$root/consul"
rm -rf "$apt"
"$root/consul" version | head -n 1
