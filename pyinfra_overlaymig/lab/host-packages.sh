#!/bin/sh
# Installs, on a Debian or Ubuntu host and as root, those of the named packages that are missing, and names them first.
# Anywhere else it names them and says what to do. usage: host-packages.sh PACKAGE…
set -eu

missing=
for package; do
    if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0

echo "missing on this host:$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo '  hint: this is not Debian or Ubuntu: install what brings these programs, then run this again' >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "  hint: as root: apt-get install$missing; then run this again" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word for each package
apt-get install -y -qq --no-install-recommends $missing
