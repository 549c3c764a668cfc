#!/bin/sh
# strace from the system's own packages: tests/durability makes single system calls of the registry fail with it.
set -eu

command -v strace >/dev/null && exit 0
command -v apt-get >/dev/null || {
    echo "strace is installed with apt-get, which this machine has not: install it in another way." >&2
    exit 1
}
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends strace
strace --version | head -n 1
