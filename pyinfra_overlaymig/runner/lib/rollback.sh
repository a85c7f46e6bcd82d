# Going to a stack of layers that are sealed already, backward or forward: no script runs, no layer is copied.
# shellcheck shell=dash
#
#   rollback/journal    `from` and `to`, generations. It is committed once `to` is current; `from` is gone back to when the
#                       services of `to` do not get ready. Without this file, what else is there means nothing
#   rollback/services   those that have to stand still while state is replaced
#   rollback/layers     those that come or go
#   rollback/state/… publishing paused   as lib/state.sh describes a journal

# rollback_begin: a new, empty journal.
rollback_begin() {
    state_drop_replaced
    rm -rf -- "$ROLLBACK"
    mkdir -p "$ROLLBACK"
    reserve_fill
    : >"$ROLLBACK/services"
}

# generation_go STACK-FILE: makes a new generation with that stack, and it current and running. When its services do not
# get ready, all is as before, and this leaves with 9. Between rollback_begin and this, state to restore can be prepared.
generation_go() {
    local from to
    from=$(generation_current)
    to=$(($(generation_newest) + 1))
    generation_stack "$from" >"$ROLLBACK/before"
    cp -- "$1" "$ROLLBACK/stack"
    sort "$ROLLBACK/before" "$ROLLBACK/stack" | uniq -u >"$ROLLBACK/layers"
    snapshots_due
    generation_write "$to" "$ROLLBACK/stack"
    write_file "$ROLLBACK/journal" "from $from
to $to"
    sync -f "$SYS"
    generation_set "$to"
    rollback_finish || die 9 'that generation is not kept; the machine is as it was before' 'the reason is above'
}

# rollback STACK-FILE: generation_go, as a worker. Leaves with its outcome, which is told to whoever confirms.
rollback() {
    trap '' HUP PIPE INT TERM
    trap 'rollback_leave $?' EXIT
    goal=$(($(generation_newest) + 1))
    generation_go "$1"
    say "generation $(generation_current) is running"
}

# rollback_leave STATUS: what a rollback does last, wherever it got to.
rollback_leave() {
    local code
    code=$1
    trap - EXIT
    case $code in
    0 | 9) ;;
    *)
        warn "going to generation $goal failed with status $1"
        (if [ -f "$ROLLBACK/journal" ]; then rollback_back live; else rollback_recover live; fi) &
        if ! wait "$!"; then code=20; elif [ "$(generation_current)" = "$goal" ]; then code=0; else code=9; fi
        ;;
    esac
    confirm_outcome "$code"
    exit "$code"
}

# rollback_finish: what follows the commit. False when it turned out bad, and was taken back.
rollback_finish() {
    # A process of its own, waited for: before `||`, the shell would go on after a step that failed.
    (
        rollback_pause
        : >"$ROLLBACK/publishing"
        state_each "$ROLLBACK" state_publish
        [ "$(generation_running)" = "$(generation_current)" ] || switch_live
        services_follow "$ROLLBACK" "$ROLLBACK/layers"
        confirm_await "$ROLLBACK"
        sync -f "$STATE"
    ) &
    if wait "$!"; then
        # It is kept, whatever becomes of this: what is left is done by the next recover.
        (rollback_end) &
        wait "$!" || warn 'what is left over of it goes with the next change of the machine'
    else
        warn "going back to generation $(plan_values from "$ROLLBACK/journal")"
        (rollback_back live) &
        wait "$!" || die 20 'going back failed as well' 'the reason is above; run: system-migrate recover'
        return 1
    fi
}

# rollback_pause: stops what has to stand still while state is replaced.
rollback_pause() {
    # shellcheck disable=SC2046 # one word for each service
    services_pause "$ROLLBACK" $(services_needing $(cat "$ROLLBACK/services"))
}

# rollback_back live|boot: takes it back.
rollback_back() {
    reserve_release
    # What failed may have been in the middle of the switch: which generation runs is known after this.
    switch_settle
    generation_set "$(plan_values from "$ROLLBACK/journal")"
    [ "$1" = boot ] || rollback_pause || :
    state_take_back "$ROLLBACK"
    if [ "$1" = live ]; then
        [ "$(generation_running)" = "$(generation_current)" ] || switch_live
        (services_follow "$ROLLBACK" "$ROLLBACK/layers" back) &
        wait "$!" || warn 'services of the generation before do not get ready either'
    fi
    sync -f "$STATE"
    rm -f -- "$ROLLBACK/journal"
    rm -rf -- "$ROLLBACK"
    metadata_write
}

# rollback_end: all of it succeeded.
rollback_end() {
    rm -f -- "$ROLLBACK/journal"
    state_keep "$ROLLBACK" rollback
    rm -rf -- "$ROLLBACK"
    snapshots_sweep
    metadata_write
}

# rollback_recover live|boot: finishes or takes back a rollback that was interrupted.
rollback_recover() {
    local to
    [ -d "$ROLLBACK" ] || return 0
    if [ ! -f "$ROLLBACK/journal" ]; then
        [ "$1" = boot ] || services_resume "$ROLLBACK"
        rm -rf -- "$ROLLBACK"
        return 0
    fi
    to=$(plan_values to "$ROLLBACK/journal")
    if [ "$(generation_current)" != "$to" ] || [ -f "$ROLLBACK/confirm" ]; then
        warn "going to generation $to was interrupted: taken back"
        rollback_back "$1"
    elif [ "$1" = live ]; then
        warn "going to generation $to was interrupted: finishing it"
        rollback_finish || :
    else
        warn "going to generation $to was interrupted: it boots"
        : >"$ROLLBACK/publishing"
        state_each "$ROLLBACK" state_publish
        sync -f "$STATE"
        rollback_end
    fi
}
