# Recovery: decides from what is on disk alone. To be run in the base view, under the lock.
# shellcheck shell=dash

# recover live|boot: undoes each stage whose migration is not in the current generation, and finishes each that is and has no
# `applied` mark. `boot` says that the current generation is not running yet: then only files are mended.
recover() {
    local dir id
    recover_swept
    for dir in "$SYS/staging"/*/; do
        id=${dir%/}
        id=${id##*/}
        if ! valid_id "$id" || [ -f "$dir/failed" ]; then continue; fi
        if stack_has "$id"; then
            recover_forward "$id" "$1"
        else
            warn "$id was interrupted before its commit: undone"
            recover_back "$id"
        fi
    done
    for dir in "$SYS/migrations"/*/; do
        id=${dir%/}
        id=${id##*/}
        if [ ! -d "$dir" ] || [ -f "$dir/applied" ] || stack_has "$id"; then continue; fi
        recover_back "$id"
    done
    [ "$1" = boot ] || [ "$(generation_current)" = "$(generation_running)" ] || switch_live
}

# recover_swept: a switch that was killed, and leftovers that mean nothing: half-received bundles of processes that are
# gone.
recover_swept() {
    local dir
    switch_settle
    for dir in "$SYS/staging"/.incoming.*; do
        [ -d "$dir" ] || continue
        kill -0 "${dir##*.}" 2>/dev/null || rm -rf -- "$dir"
    done
}

# recover_back ID: nothing of ID was ever current: its layer and records go, and what it was stays as evidence.
recover_back() {
    state_take_back "$1"
    if [ ! -f "$SYS/migrations/$1/applied" ]; then rm -rf -- "$SYS/layers/$1" "$SYS/migrations/$1"; fi
    if [ -d "$SYS/staging/$1" ]; then
        services_resume "$1"
        stage_keep "$1" interrupted
    fi
}

# recover_forward ID BOOT: ID is past its commit point: completes it, or reverts it when it turns out bad.
recover_forward() {
    local before
    warn "$1 was interrupted after its commit: finishing it"
    if [ "$2" = boot ]; then
        : >"$SYS/staging/$1/publishing"
        state_each "$1" state_publish
        return 0
    fi
    before=$(generation_before "$(generation_current)")
    # A process of its own, waited for: before `||`, the shell would go on after a step that failed.
    (finish "$1") &
    if ! wait "$!"; then
        revert "$1" "$before"
        stage_keep "$1" unhealthy
        warn "$1 was reverted"
    fi
}

# generation_before N: the newest generation below N whose layers are all there, 0 when there is none.
generation_before() {
    local n whole layer
    n=$(($1 - 1))
    while [ "$n" -gt 0 ]; do
        whole=yes
        [ -f "$SYS/generations/$n" ] || whole=
        for layer in $(generation_stack "$n" 2>/dev/null); do
            [ -d "$SYS/layers/$layer" ] && [ -f "$SYS/migrations/$layer/applied" ] || whole=
        done
        [ -z "$whole" ] || break
        n=$((n - 1))
    done
    echo "$n"
}

# generation_running: the generation that this boot runs, 0 (the base) when none was switched to.
generation_running() {
    if [ -f "$RUN/running" ]; then cat "$RUN/running"; else echo 0; fi
}
