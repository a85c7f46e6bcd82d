#!/bin/sh
# Binds the state that this service works on, and sees to its owners, before it starts; marks it as initialized.
set -eu
# Services that share a state path start at the same time. Root's alone: whoever may read a lock may hold it for ever.
(umask 077 && : >>/run/overlaymig-state.lock)
# One that was made by an older pre-start.
chmod 600 /run/overlaymig-state.lock
exec 9>>/run/overlaymig-state.lock
flock 9

inode() { stat -L -c %d:%i "$1" 2>/dev/null; }

# Directories above state have the modes of their places.
above() {
    [ -n "$1" ] && [ ! -d "/data/state$1" ] || return 0
    above "${1%/*}"
    mkdir -m 700 "/data/state$1"
    chown --reference="$1" "/data/state$1"
    chmod --reference="$1" "/data/state$1"
}

bind_state() {
    if [ "$(readlink "$1")" = "/data/state$1" ]; then
        mkdir -p "/data/state$1"
        return
    fi
    mkdir -p "$1"
    # Mounted, or in what is.
    if mountpoint -q "$1" || [ "$(inode "$1")" = "$(inode "/data/state$1" || echo none)" ]; then
        return
    fi
    # The first time it starts from what the layers have there.
    if [ ! -d "/data/state$1" ]; then
        rm -rf "/data/state$1.new"
        above "${1%/*}"
        cp -a "$1" "/data/state$1.new"
        mv -T "/data/state$1.new" "/data/state$1"
    fi
    mount --bind "/data/state$1" "$1"
}

# Files belong to names, disks keep numbers: where an account that owned something here at the last start has another
# number now, as after a rollback and another order of installations, its files follow. Numbers may have been swapped,
# so all files move to free numbers first; `moving` says that this is done.
owners_follow() {
    record=/data/system/accounts/$(printf '%s' "$1" | sed 's/%/%25/g; s,/,%2f,g')
    # A full disk is no reason to stay down: where nothing has changed, nothing is written to it.
    lists=/run/overlaymig-owners
    mkdir -p /data/system/accounts "$lists"
    # Not by pipes: who is not found for an error would own nothing.
    sed 's/^/u:/' /etc/passwd >"$lists/accounts"
    sed 's/^/g:/' /etc/group >>"$lists/accounts"
    awk -F : '{ print $1, $2, $4 }' "$lists/accounts" >"$lists/all"
    if [ -f "$record" ]; then
        [ -f "$record.moving" ] || owners_leave "$1"
        [ ! -f "$record.moving" ] || while read -r kind old new; do
            owners_change "$1" "$kind" "$((old + 1000000000))" "$new"
        done <"$record.moving"
    fi
    find "/data/state$1" -xdev -printf 'u %U
g %G
' >"$lists/found"
    sort -u "$lists/found" >"$lists/here"
    awk 'NR == FNR { here[$1, $2]; next } ($1, $3) in here' "$lists/here" "$lists/all" >"$lists/new"
    if ! cmp -s "$lists/new" "$record"; then
        cp "$lists/new" "$record.new"
        mv -f "$record.new" "$record"
    fi
    rm -rf "$record.moving" "$lists"
}

owners_leave() {
    awk 'NR == FNR { was[$1, $2] = $3; next } ($1, $2) in was && was[$1, $2] != $3 { print $1, was[$1, $2], $3 }'         "$record" "$lists/all" >"$lists/moves"
    [ -s "$lists/moves" ] || return 0
    cp "$lists/moves" "$record.moves"
    while read -r kind old new; do
        echo "$1: what was $kind $old becomes $new"
        owners_change "$1" "$kind" "$old" "$((old + 1000000000))"
    done <"$record.moves"
    mv -f "$record.moves" "$record.moving"
}

# What refuses it (chattr +i), or goes meanwhile, keeps nothing down.
owners_change() {
    case $2 in
    u) find "/data/state$1" -xdev -uid "$3" -execdir chown -h "$4" {} + ;;
    g) find "/data/state$1" -xdev -gid "$3" -execdir chgrp -h "$4" {} + ;;
    esac || echo "$1: not all of what was $2 $3 has become $4"
}

state_all() {
    for path; do
        bind_state "$path"
        owners_follow "$path"
    done
}

state_all @STATE@
mkdir -p /data/state/services/@NAME@
: >>/data/state/services/@NAME@/initialized
