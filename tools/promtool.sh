#!/bin/sh
# tools/promtool.sh WHERE: put promtool at WHERE. The machine's own is linked; else it is taken out of Debian's package
# prometheus, which is downloaded and unpacked but not installed, so that no Prometheus starts and no root is needed.
set -eu
where=$1
if found=$(command -v promtool); then
    ln -sf "$found" "$where"
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "maintd: please install promtool (it comes with Prometheus) and have it in PATH" >&2
    exit 1
fi
echo "maintd: fetching promtool out of Debian's package prometheus (not installed)"
place=$(mktemp -d "$(cd "$(dirname "$where")" && pwd)/promtool.XXXXXX")
trap 'rm -rf "$place"' EXIT
cd "$place"
# As root, apt-get would hand the download to a user who may not write here.
fetch() { apt-get -q -o APT::Sandbox::User=root download prometheus >log 2>&1; }
if ! fetch; then
    if [ "$(id -u)" = 0 ]; then apt-get -q update >>log 2>&1 || true; fi
    fetch || { cat log >&2; echo "maintd: please install promtool (Debian: apt-get install prometheus)" >&2; exit 1; }
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool
cd - >/dev/null
mv "$place/usr/bin/promtool" "$where"
touch "$where"
