# The reserve: space and inodes set aside, so that what a full disk has made fail can be taken back on that full disk.
# shellcheck shell=dash
#
#   reserve/     1 MB and 128 empty files; gone since the last time that it was needed

# reserve_fill: sets it aside, if it is not there. A disk that has no room for it is no reason to stop.
reserve_fill() {
    [ ! -d "$RESERVE" ] || return 0
    rm -rf -- "$RESERVE.new"
    if mkdir "$RESERVE.new" && head -c 1048576 /dev/zero >"$RESERVE.new/blocks" &&
        (cd "$RESERVE.new" && seq 128 | xargs touch --) && mv -T -- "$RESERVE.new" "$RESERVE"; then
        return 0
    fi 2>/dev/null
    rm -rf -- "$RESERVE.new"
}

# reserve_release: gives it back to the disk.
reserve_release() { rm -rf -- "$RESERVE"; }
