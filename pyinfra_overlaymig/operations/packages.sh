#!/bin/sh
# Installs the Debian packages of what the runner in the directory $1 needs and this machine lacks.
set -eu
# shellcheck source=/dev/null
. "$1/lib/check.sh"

packages=$(capabilities_missing | tr ',' '\n' |
    sed -n 's/.*(package \([a-z0-9.+-]*\)).*/\1/p' | sort -u | tr '\n' ' ')
[ -n "${packages% }" ] || exit 0

command -v apt-get >/dev/null 2>&1 || {
    echo "these packages are missing, and there is no apt-get here: $packages" >&2
    echo '  hint: add them to the image of the machine' >&2
    exit 111
}
echo "==> installing ${packages% }"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
apt-get update
# shellcheck disable=SC2086 # one word for each package
apt-get install -y --no-install-recommends $packages
