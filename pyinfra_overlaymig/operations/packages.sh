#!/bin/sh
# Installs the Debian packages that the base of this machine lacks. Arguments: PROGRAM:PACKAGE, of all that it needs.
set -eu

# A layer may bring them, and is not there when the machine is to be helped: they are looked for in the base.
base=/run/system-migrate/base
[ -e "$base/proc/1" ] || base=

packages=
for need; do
    for directory in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
        [ ! -x "$base$directory/${need%:*}" ] || continue 2
    done
    case " $packages " in
    *" ${need#*:} "*) ;;
    *) packages="$packages${packages:+ }${need#*:}" ;;
    esac
done
# Its smallest package has the program, and not what the runner imports.
case " $packages " in
*' python3 '*) ;;
*)
    chroot "$base/" /usr/bin/env python3 -I -S -c 'import ctypes, json, tarfile' 2>/dev/null ||
        packages="$packages${packages:+ }python3"
    ;;
esac
[ -n "$packages" ] || exit 0

if [ -n "$base" ]; then
    echo "the base lacks these packages, and a machine cannot change its base: $packages" >&2
    echo '  hint: rebuild the image with them, and restart the machine from it' >&2
    exit 111
fi
command -v apt-get >/dev/null 2>&1 || {
    echo "these packages are missing, and there is no apt-get here: $packages" >&2
    echo '  hint: add them to the image of the machine' >&2
    exit 111
}
echo "==> installing $packages"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
apt-get update
# shellcheck disable=SC2086 # one word for each package
apt-get install -y --no-install-recommends $packages
