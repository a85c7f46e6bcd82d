# The base view: a read-only mount of the machine's own image root, in which every verb that writes runs,
# so that it works with the base's tools however broken the layers are.
# shellcheck shell=dash
#
#   /run/system-migrate        bound on itself and unbindable: `mount --rbind /run` leaves all below it out
#   /run/system-migrate/base   the base, with /dev /proc /sys /run /data; overlays take it as their lowest lowerdir
#
# From inside the view, $LIVE reaches the running root: process 1 follows every pivot_root(2) of its namespace.

# base_view: mounts the view if this boot has none yet. Only right in a root that no generation was switched to.
base_view() {
    local dir
    if mountpoint -q "$BASE"; then return; fi
    # pivot_root(2) and moving a mount both refuse where propagation is shared.
    mount --make-rprivate /
    mkdir -p "$RUN"
    mountpoint -q "$RUN" || mount --bind "$RUN" "$RUN"
    mount --make-unbindable "$RUN"
    mkdir -p "$BASE"
    # Complete before it is in place: a kill in between must not leave half a view that looks whole.
    mkdir -p "$RUN/base.new"
    mountpoint -q "$RUN/base.new" && umount -R "$RUN/base.new"
    mount --bind / "$RUN/base.new"
    mount -o remount,bind,ro "$RUN/base.new"
    for dir in dev proc sys run data; do
        [ -d "/$dir" ] || die 111 "the base has no /$dir" "add 'mkdir -p /$dir' to the image"
        case $dir in
        dev | sys) mount --rbind "/$dir" "$RUN/base.new/$dir" ;;
        *) mount --bind "/$dir" "$RUN/base.new/$dir" ;;
        esac
    done
    mount --move "$RUN/base.new" "$BASE"
}

# base_enter VERB ARGUMENT…: goes on as this verb inside the base view; returns at once when already there.
base_enter() {
    [ -z "${SYSTEM_MIGRATE_INSIDE-}" ] || return 0
    need_root
    mountpoint -q "$DATA" || [ -d "$SYS" ] ||
        die 111 'there is no /data' 'mount the persistent volume at /data, then run system-migrate init'
    # Only the holder of the lock may touch a switch: this one may be another operator's, in flight.
    if [ -d "$OLD" ]; then
        lock_take switch
        switch_complete
        exec 9>&-
    fi
    base_view
    cd /
    SYSTEM_MIGRATE_INSIDE=1
    export SYSTEM_MIGRATE_INSIDE
    exec chroot "$BASE" /bin/sh "$SELF" "$@"
}

# base_identity VIEW: names the base by what it is made of, to standard output. Inside the view VIEW is empty.
base_identity() {
    cat "$1/etc/os-release" "$1/var/lib/dpkg/status" 2>/dev/null | sha256sum | cut -c1-16
}
