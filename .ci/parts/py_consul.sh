#!/bin/sh
# .parts/py-consul is py-consul's source distribution, unpacked, with what it imports: its own test suite is run
# against the embedded registry and against a real Consul. Nothing of it is installed or copied.
set -eu

cd "$(dirname "$0")/../.."
version=1.8.0
home=$PWD/.parts/py-consul

[ -f "$home/version" ] && [ "$(cat "$home/version")" = "$version" ] && exit 0
python=.venv/bin/python
[ -x "$python" ] || make setup

rm -rf "$home"
mkdir -p "$home/download" "$home/imports"
$python -m pip download --quiet --no-deps --no-binary :all: --dest "$home/download" "py-consul==$version"
tar -xzf "$home"/download/py_consul-*.tar.gz -C "$home" --strip-components=1
$python -m pip install --quiet --target "$home/imports" requests
rm -r "$home/download"
echo "$version" >"$home/version"
