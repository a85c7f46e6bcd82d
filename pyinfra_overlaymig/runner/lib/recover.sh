# Recovery: decides from what is on disk alone. To be run in the base view, under the lock.
# shellcheck shell=dash

# recover live|boot: undoes each stage whose migration is not in the current generation, and finishes each that is and has no
# `applied` mark. `boot` says that the current generation is not running yet: then only files are mended.
recover() {
    generation_whole "$(generation_current)" ||
        die 20 'the current generation cannot be assembled' "look at $SYS/generations and $SYS/layers"
    recover_swept "$1"
    rollback_recover "$1"
    recover_stages "$1" ''
    recover_records
    snapshots_sweep
    if [ "$1" = live ]; then recover_running; fi
}

# recover_running: the current generation runs, and its services do. A switch of this that is interrupted leaves `follow`: the
# generation runs then, and the services are still those of the one before.
recover_running() {
    local failed
    if [ "$(generation_current)" = "$(generation_running)" ] && [ ! -d "$RUN/follow" ]; then return; fi
    make_dirs "$RUN/follow"
    : >"$RUN/follow/layers"
    if [ "$(generation_current)" != "$(generation_running)" ]; then
        warn "generation $(generation_current) is current and $(generation_running) runs: switching"
        switch_live
    fi
    failed=
    (services_follow "$RUN/follow" "$RUN/follow/layers") &
    wait "$!" || failed=yes
    # Tried once: one that does not get ready must not be in the way of going back.
    rm -rf -- "$RUN/follow"
    [ -z "$failed" ]
}

# recover_stages live|boot OWN: finishes or undoes each stage but OWN, which is the caller's.
recover_stages() {
    local dir id
    for dir in "$SYS/staging"/*/; do
        id=${dir%/}
        id=${id##*/}
        if ! valid_id "$id" || [ "$id" = "$2" ] || [ -f "$dir/failed" ]; then continue; fi
        if [ -f "$SYS/migrations/$id/applied" ]; then
            # All was done but for taking the stage away.
            metadata_write
            stage_discard "$id"
        elif stack_has "$id" && [ -f "$dir/confirm" ]; then
            warn "$id was interrupted before a new connection confirmed it: taken back"
            revert "$id" "$(generation_before "$(generation_current)")" "$1"
            stage_keep "$id" unconfirmed
        elif stack_has "$id"; then
            recover_forward "$id" "$1"
        elif [ -d "$SYS/migrations/$id" ]; then
            warn "$id was being taken back: going on with it"
            revert "$id" "$(generation_current)" "$1"
            stage_keep "$id" interrupted
        else
            warn "$id was interrupted before its commit: undone"
            recover_back "$id" "$1"
        fi
    done
}

# recover_records: drops what was never finished and is in no current generation.
recover_records() {
    local dir id
    for dir in "$SYS/migrations"/*/; do
        id=${dir%/}
        id=${id##*/}
        if [ ! -d "$dir" ] || [ -f "$dir/applied" ] || stack_has "$id"; then continue; fi
        rm -rf -- "$SYS/layers/$id" "$SYS/migrations/$id"
    done
}

# recover_swept: a switch that was killed, and leftovers that mean nothing: half-written files, uppers that never ran,
# half-received bundles of processes that are gone. At boot there is nobody who could be receiving one.
recover_swept() {
    local dir
    switch_settle
    switch_sweep "$(($(upper_live) - 1))"
    # What a revert wants brought back stays until a switch has done it.
    [ -d "$SYS/upper/change/bring" ] || drop "$SYS/upper/change"
    drop "$RESERVE.new" "$SYS"/*/*.new "$SYS"/migrations/*/*.new "$SYS/staging"/.reflink.*
    audit_sweep
    for dir in "$SYS/staging"/.incoming.*; do
        [ -d "$dir" ] || continue
        if [ "$1" = boot ] || ! kill -0 "${dir##*.}" 2>/dev/null; then rm -rf -- "$dir"; fi
    done
}

# recover_back ID live|boot: nothing of ID was ever current: a layer that was sealed goes, and what it was stays as evidence.
recover_back() {
    rm -rf -- "$SYS/layers/$1"
    stage_shrink "$1"
    [ "$2" = boot ] || services_resume "$SYS/staging/$1"
    stage_keep "$1" interrupted
}

# recover_forward ID live|boot: ID is past its commit point: completes it, or reverts it when it turns out bad.
recover_forward() {
    local before
    warn "$1 was interrupted after its commit: finishing it"
    if [ "$2" = boot ]; then
        : >"$SYS/staging/$1/publishing"
        state_each "$SYS/staging/$1" state_publish
        return 0
    fi
    before=$(generation_before "$(generation_current)")
    # A process of its own, waited for: before `||`, the shell would go on after a step that failed.
    (
        exec >>"$SYS/staging/$1/log" 2>&1 </dev/null
        trap audit_settle EXIT
        finish "$1"
    ) &
    if ! wait "$!"; then
        tail -n 20 "$SYS/staging/$1/log" 2>/dev/null || :
        revert "$1" "$before" live
        stage_keep "$1" unhealthy
        warn "$1 was reverted"
    fi
}

# generation_running: the generation that this boot runs, 0 (the base) when none was switched to.
generation_running() {
    local line
    line "$RUN/running"
    echo "${line:-0}"
}
