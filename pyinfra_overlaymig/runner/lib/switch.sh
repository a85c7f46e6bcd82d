# The live switch: the current generation becomes the running root, in one pivot_root(2), under all running processes.
# shellcheck shell=dash
#
# Order, and what a kill leaves:
#   upper cloned        a directory that `upper/live` does not name: swept by the next switch
#   new root assembled  mounts under /run/system-migrate/new in the base view, noted in /run/system-migrate/pivot
#   pivot_root          the new root runs; the old one hangs at /dev/.system-migrate.old
#   mounts moved, old root detached; drift caught up; `upper/live` and `running` written; the note removed
# The note names the new root's mount: where that is the running root, switch_settle goes on, else it takes it down.

# switch_complete [ROOT]: what follows the pivot, in the root ROOT (the caller's own when it is not given); also after a
# kill. The new root has copies of the old one's mounts; now the mounts themselves are laid over them, because
# processes stand in them: s6-svscan in /run/service would have no working directory once the old root is gone.
# Each mount is moved once, told by its id: at its place in the old root there may be a copy from the switch before, which
# would cover it.
switch_complete() {
    local mount place
    [ -d "${1-}$OLD" ] || return 0
    while read -r mount place; do
        case $place in /dev | /proc | /sys) continue ;; esac
        [ "$(awk -v id="$mount" '$1 == id { print $5 }' /proc/1/mountinfo)" = "$OLD$place" ] || continue
        unescape "$place"
        mount_move "${1-}$OLD$unescaped" "${1-}$unescaped"
    done <"$RUN/carried"
    # Where /run is no mount of its own, the view still hangs in the old root.
    mount_move "${1-}$OLD$RUN" "${1-}$RUN"
    umount -c -i -l "${1-}$OLD" 2>/dev/null || :
    rmdir -- "${1-}$OLD"
}

# mount_move FROM TO: tries it twice. Where it cannot be moved its copy serves as well: no error is one.
mount_move() { mount -c --move "$1" "$2" || mount -c --move "$1" "$2" || :; } 2>/dev/null

# root_mount FILE PLACE: the id of the mount at PLACE in a mountinfo file, to standard output; of several, the top one.
root_mount() { awk -v place="$2" '$5 == place { id = $1 } END { print id }' "$1"; }

# switch_wait OLD-MOUNT: waits for processes that were being forked when the root was pivoted: the kernel moves those it
# can see, and a half-made child is not one of them. Commands are over in no time; what stays longer is named.
switch_wait() {
    local left tries file
    tries=0
    while left=$(grep -sl "^$1 [0-9]* [0-9:]* [^ ]* / " /proc/[0-9]*/mountinfo) && [ "$tries" -lt 40 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    for file in $left; do
        file=${file%/mountinfo}
        warn "$(cat "$file/comm" 2>/dev/null) (process ${file#/proc/}) stays on the root before, until it is restarted"
    done
}

# switch_settle: what follows the pivot; or, where none took place, takes what was assembled for it down. Idempotent.
switch_settle() {
    local key value mount from to generation
    if [ -f "$RUN/pivot" ]; then
        while read -r key value; do
            case $key in
            mount) mount=$value ;; from) from=$value ;; to) to=$value ;; generation) generation=$value ;;
            esac
        done <"$RUN/pivot"
        if [ "$(root_mount /proc/1/mountinfo /)" = "$mount" ]; then
            upper_set_live "$to"
            switch_complete "$LIVE"
            upper_catch_up "$from" "$to" "$RUN/drift"
            # Only now: until the pivot the state paths of the root before are what must not be carried over.
            [ ! -f "$RUN/state.new" ] || mv -f "$RUN/state.new" "$RUN/state"
            write_file "$RUN/running" "$generation"
            drop "$SYS/upper/change"
        fi
    fi
    if mountpoint -q "$RUN/new"; then umount -l "$RUN/new"; fi
    drop "$RUN/pivot"
}

# switch_sweep [N]: drops uppers that are neither live nor N. The one before the live one may still be under processes
# of the root before.
switch_sweep() {
    local live dir
    live=$(upper_live)
    for dir in "$SYS/upper"/[0-9]*; do
        case ${dir##*/} in "$live" | "${1:-none}" | '[0-9]*') ;; *) rm -rf -- "$dir" 2>/dev/null || : ;; esac
    done
}

# upper_live: the number of the running root's upper, 0 when there is none yet, to standard output.
upper_live() {
    if [ -L "$SYS/upper/live" ]; then linked "$SYS/upper/live" "$SYS/upper"/[0-9]*; else echo 0; fi
}

# upper_set_live N: from now on N is the running root's.
upper_set_live() {
    ln -sfn "$1" "$SYS/upper/live.new"
    mv -fT "$SYS/upper/live.new" "$SYS/upper/live"
}

# upper_clone FROM TO: TO gets FROM's drift. Files are hard links: what a running process still writes
# through the old root shows in the new one. Directories are new: no upperdir is ever shared by two mounts.
upper_clone() {
    drop "$SYS/upper/$2.new" "$SYS/upper/$2"
    mkdir -p "$SYS/upper/$2.new/work"
    if [ -d "$SYS/upper/$1/upper" ]; then
        # A file that goes while it is cloned is no failure; what the clone misses, upper_catch_up brings.
        cp -al -- "$SYS/upper/$1/upper" "$SYS/upper/$2.new/upper" 2>/dev/null || :
    else
        mkdir "$SYS/upper/$2.new/upper"
        chmod --reference=/ "$SYS/upper/$2.new/upper"
    fi
    write_file "$SYS/upper/$2.new/generation" "$(generation_current)"
    mv -T -- "$SYS/upper/$2.new" "$SYS/upper/$2"
}

# upper_list N: the entries of upper N, NUL-separated, sorted: `<inode> ./path`, of a directory `- ./path`.
upper_list() {
    [ -d "$SYS/upper/$1/upper" ] || return 0
    (cd "$SYS/upper/$1/upper" && find . -mindepth 1 \( -type d -printf '- %p\0' -o -printf '%i %p\0' \)) | sort -z
}

# upper_catch_up FROM TO LIST: repeats in the running root what happened to upper FROM while its clone TO, which LIST was
# made of, was taken and until the pivot. Written through the mount, as an upperdir in use is not to be touched; what has
# changed since in TO too stays: it is newer. Nothing is lost; what was made before the pivot and deleted right after it
# may come back.
upper_catch_up() {
    local inode entry from to
    [ -d "$SYS/upper/$1/upper" ] || return 0
    from=$SYS/upper/$1/upper
    to=$SYS/upper/$2/upper
    upper_list "$1" >"$3.now"
    # Files first, then directories from the deepest up: in reverse order.
    comm -z -23 "$3" "$3.now" | sort -rz | escaped | while IFS= read -r entry; do
        inode=${entry%% *}
        unescape "${entry#* }"
        if [ "$inode" = - ]; then
            rmdir -- "$LIVE/$unescaped" 2>/dev/null || :
        elif [ "$(stat -c %i -- "$to/$unescaped" 2>/dev/null)" = "$inode" ]; then
            rm -f -- "$LIVE/$unescaped" || :
        fi
    done
    comm -z -13 "$3" "$3.now" | escaped | while IFS= read -r entry; do
        unescape "${entry#* }"
        # A character device here is a whiteout, the trace of the removal above.
        if [ ! -c "$to/$unescaped" ] && there "$to/$unescaped"; then continue; fi
        drift_repeat "$from/$unescaped" "$LIVE/$unescaped" ||
            ! there "$from/$unescaped" || warn "drift of the moment of the switch is not carried over: $entry"
    done
}

# drift_repeat SOURCE TARGET: makes TARGET, seen through the mount, what SOURCE in an upper says. Programs go on making and
# removing files meanwhile: that something has just gone is no failure.
drift_repeat() {
    if [ -c "$1" ] && [ "$(stat -c %t:%T -- "$1" 2>/dev/null)" = 0:0 ]; then
        rm -rf -- "$2"
    elif plain_dir "$1"; then
        mkdir -p -- "$2" && chown --reference="$1" -- "$2" && chmod --reference="$1" -- "$2"
    else
        cp -a -- "$1" "$2"
    fi 2>/dev/null
}

# switch_carry LIVE NEW: binds every mount of the root LIVE at the same place below NEW, each with the tree below it.
# State paths are not carried: they follow the generation. A place that the new stack lacks is made in its upper.
switch_carry() {
    local mount place
    stack_state | while read -r place; do
        unescape "$place"
        # As mountinfo writes it, which escapes less than a plan does.
        printf '%s\t%s\n' "$(printf '%s' "$unescaped" | sed 's/\\/\\134/g; s/ /\\040/g; s/\t/\\011/g' |
            tr '\n' '\001' | sed 's/\x01/\\012/g')" "$place"
    done >"$RUN/state.new"
    : >>"$RUN/state"
    # Mounts may lie on each other at one place: the id is that of the one on top, which none of the others lies on.
    awk -v own="$RUN" '
        part == 1 { state[$1]; next }
        { place[$1] = $5; below[$1] = $2 }
        END {
            for (id in place)
                if (below[id] in place && place[below[id]] == place[id]) covered[below[id]]
            for (id in place) {
                at = place[id]
                if (at != "/" && at != own && index(at, own "/") != 1 && !(at in state) && !(id in covered)) top[at] = id
            }
            for (at in top) {
                above = at
                while (sub("/[^/]*$", "", above) && above != "" && !(above in top)) continue
                if (above == "") print top[at], at
            }
        }' part=1 "$RUN/state" "$RUN/state.new" part=2 /proc/1/mountinfo >"$RUN/carried"
    while read -r mount place; do
        unescape "$place"
        mount_place "$1$unescaped" "$2$unescaped"
        mount -c --rbind "$1$unescaped" "$2$unescaped"
    done <"$RUN/carried"
    cut -f 2 "$RUN/state.new" >"$RUN/state.bound"
    while read -r place; do
        unescape "$place"
        # Where the layers have a link into state there is nothing to mount.
        [ "$(readlink -- "$2$unescaped")" != "$STATE$unescaped" ] || continue
        # A rollback that restored state took it away with the layer that brings it: it begins anew.
        plain_dir "$STATE$unescaped" || state_begin "$STATE$unescaped" "$2$unescaped"
        mount_place "$STATE$unescaped" "$2$unescaped"
        mount --bind "$STATE$unescaped" "$2$unescaped"
    done <"$RUN/state.bound"
}

# state_begin STATE PLACE: makes a state path that is missing, owned as the layers have its place.
state_begin() {
    mkdir -p -- "$1"
    if [ -d "$2" ]; then chown --reference="$2" -- "$1" && chmod --reference="$2" -- "$1"; fi
}

# mount_place SOURCE PLACE: makes PLACE, a directory or a file as SOURCE is, where it is missing.
mount_place() {
    if [ -d "$1" ]; then
        [ -d "$2" ] || mkdir -p -- "$2"
    else
        [ -e "$2" ] || { mkdir -p -- "${2%/*}" && : >"$2"; }
    fi
}

# switch_pivot: from the base view, swaps the live root for $RUN/new. The program and its libraries are the base's,
# named through the base's own loader: the live root may have lost its libc.
switch_pivot() {
    local loader file libraries dir
    loader=
    for file in /lib64/ld-linux-*.so.* /lib/ld-linux*.so.* /lib/ld-musl-*.so.*; do
        [ ! -e "$file" ] || loader=$(readlink -f "$file")
    done
    [ -n "$loader" ] || die 111 'the base has no dynamic loader' 'build the image on Debian, Ubuntu or Alpine'
    libraries=
    for dir in /lib /usr/lib /lib/*-linux-* /usr/lib/*-linux-*; do libraries=$libraries:$BASE$dir; done
    chroot "$LIVE" "$BASE$loader" --library-path "${libraries#:}" \
        "$BASE$(command -v pivot_root)" "$BASE$RUN/new" "$BASE$RUN/new$OLD"
}

# switch_live: makes the current generation the running root.
switch_live() {
    local from to old
    switch_settle
    from=$(upper_live)
    to=$((from + 1))
    switch_sweep "$((from - 1))"
    generation_whole "$(generation_current)"
    make_dirs "$RUN/new"
    upper_clone "$from" "$to"
    upper_list "$to" >"$RUN/drift"
    drift_release "$from" "$to"
    drift_change "$to"
    stack_mount "$RUN/stack" "$RUN/new" "$SYS/upper/$to/upper" "$SYS/upper/$to/work"
    switch_carry "$LIVE" "$RUN/new"
    mkdir -p "$RUN/new$OLD"
    old=$(root_mount /proc/1/mountinfo /)
    write_file "$RUN/pivot" "mount $(root_mount /proc/self/mountinfo "$RUN/new")
from $from
to $to
generation $(generation_current)"
    switch_pivot
    # At once: what is written from here on lies in the new upper, and has to be there after a loss of power.
    upper_set_live "$to"
    switch_wait "$old"
    switch_settle
}
