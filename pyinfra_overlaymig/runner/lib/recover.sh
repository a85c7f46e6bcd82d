# Recovery: decides from what is on disk alone. To be run in the base view, under the lock.
# shellcheck shell=dash

# recover live|boot: undoes each stage whose migration is not in the current generation, and finishes each that is and has no
# `applied` mark. `boot` says that the current generation is not running yet: then only files are mended.
recover() {
    generation_whole "$(generation_current)" ||
        die 20 'the current generation cannot be assembled' "look at $SYS/generations and $SYS/layers"
    local dir id
    recover_swept
    for dir in "$SYS/staging"/*/; do
        id=${dir%/}
        id=${id##*/}
        if ! valid_id "$id" || [ -f "$dir/failed" ]; then continue; fi
        if [ -f "$SYS/migrations/$id/applied" ]; then
            # All was done but for taking the stage away.
            metadata_write
            stage_discard "$id"
        elif stack_has "$id"; then
            recover_forward "$id" "$1"
        elif [ -d "$SYS/migrations/$id" ]; then
            warn "$id was being taken back: going on with it"
            revert "$id" "$(generation_current)" "$1"
            stage_keep "$id" interrupted
        else
            warn "$id was interrupted before its commit: undone"
            recover_back "$id"
        fi
    done
    for dir in "$SYS/migrations"/*/; do
        id=${dir%/}
        id=${id##*/}
        if [ ! -d "$dir" ] || [ -f "$dir/applied" ] || stack_has "$id"; then continue; fi
        rm -rf -- "$SYS/layers/$id" "$SYS/migrations/$id"
    done
    if [ "$1" = live ] && [ "$(generation_current)" != "$(generation_running)" ]; then
        warn "generation $(generation_current) is current and $(generation_running) runs: switching"
        switch_live
        services_reconcile
    fi
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

# recover_back ID: nothing of ID was ever current: a layer that was sealed goes, and what it was stays as evidence.
recover_back() {
    rm -rf -- "$SYS/layers/$1"
    services_resume "$1"
    stage_keep "$1" interrupted
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
    (
        exec >>"$SYS/staging/$1/log" 2>&1 </dev/null
        finish "$1"
    ) &
    if ! wait "$!"; then
        tail -n 20 "$SYS/staging/$1/log" 2>/dev/null || :
        revert "$1" "$before" live
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
