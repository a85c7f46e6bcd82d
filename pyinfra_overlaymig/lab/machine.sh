#!/bin/sh
# Boots one machine of a lab and becomes what supervises it. Its output is the machine's console.
# usage: machine.sh start DIRECTORY NAME NETNS BASE    (`boot`, with the same, is what start runs as the machine's PID 1)
#        machine.sh become DIRECTORY NAME PROGRAM…     (a machine that is this one process)
set -eu
umask 022
# It is started with an empty environment.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

verb=$1 directory=$2 name=$3
shift 3

fail() {
    echo "machine.sh: $name: $1" >&2
    exit 1
}

# Writes "PID START BOOT" of this shell. It reads its own stat: no child may do that, and `$$` is 1 in a namespace.
record() {
    read -r stat </proc/self/stat
    pid=${stat%% *}
    # shellcheck disable=SC2086 # one word for each field; the name before them, in brackets, is dropped
    set -- "$1" ${stat##*) }
    read -r boot_id </proc/sys/kernel/random/boot_id
    echo "$pid ${21} $boot_id" >"$directory/.$1.new"
    mv "$directory/.$1.new" "$directory/$1"
}

hold() {
    exec 9>"$directory/lock"
    flock -n 9 || fail 'it runs already'
}

become() {
    hold
    record init
    exec "$@"
}

start() {
    netns=$1 base=$2
    hold
    record supervisor
    rm -rf --one-file-system "${directory:?}/boot"
    mkdir -p "$directory/boot/upper" "$directory/boot/work" "$directory/boot/root"
    exec nsenter "--net=/run/netns/$netns" \
        unshare --mount --propagation private --uts --ipc --pid --fork --kill-child \
        /bin/sh "$0" boot "$directory" "$name" "$netns" "$base"
}

boot() {
    base=$2
    # Until the record is written, the lock says that something of the machine is left.
    record init
    exec 9>&-
    echo "$name" >/proc/sys/kernel/hostname
    cd "$directory"
    mount_root
    cd boot/root
    mount --bind "$directory/data" data
    mount -t proc -o nosuid,nodev,noexec proc proc
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs run
    make_dev
    share_audit
    mkdir run/old-root
    pivot_root . run/old-root
    cd /
    umount -l /run/old-root
    rmdir /run/old-root
    exec env -i HOME=/root TERM=linux LANG=C.UTF-8 "PATH=$PATH" \
        /usr/local/sbin/system-migrate boot -- s6-svscan /run/service
}

# volatile: a machine's root need not survive anything, so nothing of it has to be written out at once.
mount_root() {
    layers=lowerdir=$directory/seed:$base,upperdir=boot/upper,workdir=boot/work
    mount -t overlay -o "$layers,volatile" overlay boot/root 2>/dev/null ||
        mount -t overlay -o "$layers" overlay boot/root
}

# The kernel's audit is the host's: its log, and the keeper that sets rules for this machine (audit.py).
share_audit() {
    [ -d "$directory/../../audit/source/" ] || return 0
    mkdir run/overlaymig-audit
    mount --bind "$directory/../../audit" run/overlaymig-audit
    mount --bind "$directory/../../audit/source" run/overlaymig-audit/log
    mount -o remount,bind,ro run/overlaymig-audit/log
}

make_dev() {
    mount -t tmpfs -o nosuid,noexec,mode=755,size=1024k tmpfs dev
    mkdir dev/pts dev/shm
    mknod -m 666 dev/null c 1 3
    mknod -m 666 dev/zero c 1 5
    mknod -m 666 dev/full c 1 7
    mknod -m 666 dev/random c 1 8
    mknod -m 666 dev/urandom c 1 9
    mknod -m 666 dev/tty c 5 0
    mount -t devpts -o newinstance,nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts dev/pts
    mount -t tmpfs -o nosuid,nodev tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s /proc/self/fd/0 dev/stdin
    ln -s /proc/self/fd/1 dev/stdout
    ln -s /proc/self/fd/2 dev/stderr
}

case $verb in
    start | boot | become) "$verb" "$@" ;;
    *) fail "no such verb: $verb" ;;
esac
