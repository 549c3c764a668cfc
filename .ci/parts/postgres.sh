#!/bin/sh
# PostgreSQL's server programs from the system's own packages: the tests make clusters of their own with them, and the
# package makes and starts none.
set -eu

for program in postgres /usr/lib/postgresql/*/bin/postgres; do
    command -v "$program" >/dev/null && exit 0
done
command -v apt-get >/dev/null || {
    echo "PostgreSQL is installed with apt-get, which this machine has not: install it in another way." >&2
    exit 1
}
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql-common
mkdir -p /etc/postgresql-common
grep -qs '^create_main_cluster = false' /etc/postgresql-common/createcluster.conf ||
    echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql
/usr/lib/postgresql/*/bin/postgres --version
