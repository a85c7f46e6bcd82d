#!/bin/sh
# system-migrate: brings this machine from one generation of its system to the next, or leaves it as it was.
# The launcher: finds the base and its python3, enters, and becomes the program beside this file. It uses what the shell
# has built in, and chroot: a layer may have broken everything else. FORMAT.md describes what is on disk.
set -eu

installed=/data/system/runner/system-migrate
verb=${1-}

case $0 in
/*) here=${0%/*} ;;
*/*) here=$PWD/${0%/*} ;;
*) here= ;;
esac

# Called by a link: it is the one that was installed, or the image's own.
for place in "$here" /data/system/runner/current/pyinfra_overlaymig/runner /usr/local/lib/system-migrate/pyinfra_overlaymig/runner; do
    [ ! -f "$place/__main__.py" ] || break
done

# The image's own runner is for the first boot: the one that prepared the machine knows its format.
case $verb:$place in
init:* | *:/data/system/runner/*) ;;
*)
    if [ -f "$installed" ] && { [ "$verb" != boot ] || sh "$installed" version >/dev/null 2>&1; }; then
        exec sh "$installed" "$@"
    fi
    ;;
esac

# lacking: there is no python3 in the base. Whatever is wrong, a machine boots.
lacking() {
    echo 'system-migrate: the base has no /usr/bin/python3' >&2
    echo "  hint: rebuild the image with Debian's package python3; machine_prepared installs it on a machine not booted by the runner" >&2
    [ "$verb" = boot ] || exit 111
    shift
    [ "${1-}" != -- ] || shift
    exec "$@"
}

# The view of the base is there from the first verb of a boot on; it hangs in the old root where a switch was killed.
for base in /run/system-migrate/base /dev/.system-migrate.old/run/system-migrate/base ''; do
    [ ! -e "$base/proc/1" ] || break
done
[ -x "$base/usr/bin/python3" ] || lacking "$@"
[ -n "$base" ] || exec /usr/bin/python3 -I -S -B -X utf8 "$place/__main__.py" "$@"
# What is not the machine's own, as a runner that is just being installed, lies in the running root.
[ -f "$base$place/__main__.py" ] || place=/proc/1/root$place
set -- "$base" /usr/bin/python3 -I -S -B -X utf8 -X inside=yes "$place/__main__.py" "$@"
if command -v chroot >/dev/null; then exec chroot "$@"; fi
# The running root has lost its coreutils: the base's, through the base's own loader.
libraries=
for directory in "$base"/lib "$base"/usr/lib "$base"/lib/*-linux-* "$base"/usr/lib/*-linux-*; do
    libraries=$libraries${libraries:+:}$directory
done
for loader in "$base"/usr/lib/*-linux-*/ld-linux-*.so.* "$base"/lib/*-linux-*/ld-linux-*.so.* "$base"/lib/ld-musl-*.so.*; do
    [ ! -e "$loader" ] || exec "$loader" --library-path "$libraries" "$base/usr/sbin/chroot" "$@"
done
echo 'system-migrate: there is no chroot here, and the base has no dynamic loader' >&2
exit 111
