#!/bin/sh
# Builds PgBouncer in the folder $1 from the source package of a newer Debian than this one may be; needs root and apt-get.
# The list of packages that it reads is its own: nothing of the newer system is installed.
set -eu
mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
cd "$1"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends gcc libc6-dev libevent-dev make pkg-config >/dev/null
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
echo "deb-src $archive trixie main" >sources.list
own="-o Dir::Etc::sourcelist=$1/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$1/lists -o Dir::Cache=$1/cache"
# shellcheck disable=SC2086
apt-get $own update -qq
# shellcheck disable=SC2086
apt-get $own source -qq --download-only pgbouncer
tar --strip-components=1 -xf pgbouncer_*.orig.tar.gz
./configure --quiet --without-openssl --without-cares >configure.log
make --quiet >make.log 2>&1 || { tail -n 20 make.log >&2; exit 1; }
