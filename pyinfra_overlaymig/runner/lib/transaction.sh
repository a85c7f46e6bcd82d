# The transaction of one migration, from the unpacked bundle in staging/<id> to the mark `applied`.
# shellcheck shell=dash

# transaction ID: runs as a worker. Nobody can hang it up; only before the commit can it be interrupted.
transaction() {
    id=$1
    stage=$SYS/staging/$id
    phase=stage
    trap '' HUP PIPE INT
    trap 'exit 143' TERM
    trap 'transaction_end $?' EXIT
    limit=$(plan_values timeout "$stage/limits")
    before=$(generation_current)
    state_drop_replaced
    # shellcheck disable=SC2046 # one word for each service
    services_pause "$stage" $(services_needing $(plan_values stop "$stage/plan"))
    if snapshot_wanted "$stage/limits"; then transaction_snapshot; fi
    transaction_run
    drift_conflicts "$id" "$stage/conflicts"
    if [ -s "$stage/conflicts/changes" ]; then transaction_conflict "$(plan_values drift "$stage/limits")"; fi
    state_each "$stage" state_plan
    say "sealing $(wc -l <"$stage/changes.list") changes"
    trap '' TERM
    phase=commit
    commit "$id"
    phase=finish
    finish "$id"
    say "$id is applied, generation $(generation_current) is running"
    exit 0
}

# transaction_run: the install script in its stage, and the capture of what it changed.
transaction_run() {
    stage_prepare "$id"
    audit_open "$stage/audit" || :
    say "running the install script of $id"
    status=0
    stage_run "$id" "${limit:-1800}" &
    # In the background, so that a TERM is acted on while the script runs.
    stage_pid=$!
    until [ -e "$stage/audit/quiet" ] || ! kill -0 "$stage_pid" 2>/dev/null; do sleep 0.01; done
    audit_watch "$stage/audit"
    wait "$stage_pid" || status=$?
    audit_leave "$stage/audit" || :
    if [ -f "$stage/timeout" ]; then
        warn "the install script did not end within its limit of $limit s"
        exit 9
    elif [ "$status" -ne 0 ]; then
        warn "the install script failed with status $status"
        exit "$status"
    fi
    stage_pid=
    # What the commit has to wait for is on its way to the disk meanwhile.
    sync -f "$stage" 9>&- &
    say 'capturing what it changed'
    capture "$id"
    audit_conclude "$stage"
    if [ ! -s "$stage/changes.list" ] && plan_says local "$stage/plan"; then
        phase=nothing
        exit 3
    fi
}

# transaction_conflict refuse|adopt|discard: drift is in the way: what the migration wants to be done about it.
transaction_conflict() {
    transaction_drift
    case $1 in
    discard)
        say 'giving it up, as the migration says'
        drift_drop "$stage" "$stage/conflicts/changes"
        ;;
    adopt)
        cp -- "$stage/conflicts/changes" "$stage/adopted"
        # An interrupt comes to the stage, before and after it.
        trap '' TERM
        (adopt "${id#*_}" "$stage/adopted") &
        if ! wait "$!"; then
            warn 'the drift was not adopted'
            # It may have got past its own commit: this finishes it or takes it back, and leaves this stage alone.
            (recover_stages live "$id") &
            wait "$!" || phase=broken
            exit 9
        fi
        trap 'exit 143' TERM
        before=$(generation_current)
        say 'once more, over the layer that was adopted'
        stage_clear "$id"
        transaction_run
        drift_conflicts "$id" "$stage/conflicts"
        [ ! -s "$stage/conflicts/changes" ] || transaction_conflict refuse
        ;;
    *)
        warn '  hint: to give these changes up: system-migrate drift discard PATH; to keep them in a layer: drift adopt PATH'
        phase=conflict
        exit 3
        ;;
    esac
}

# transaction_snapshot: takes the snapshot that the migration asks for; what uses that state stands still until the end.
transaction_snapshot() {
    plan_values state "$stage/plan" >"$stage/paths"
    generation_stack "$before" >"$stage/stack"
    # shellcheck disable=SC2046 # one word for each service
    services_pause "$stage" $(services_needing $(services_of "$stage/paths" "$stage/stack"))
    snapshot_take "$id" "$stage/plan"
}

# transaction_revert: takes the commit back; leaves the outcome in $code. In a process of its own, which is waited for:
# before `||`, the shell would go on after a step that failed.
transaction_revert() {
    warn "reverting to generation $before"
    (set -e; revert "$id" "$before" live) &
    if wait "$!"; then code=9; else code=20; fi
}

# transaction_drift: names the drift that is in the way.
transaction_drift() {
    local count
    count=$(wc -l <"$stage/conflicts/changes")
    warn "$id would change what was changed outside of migrations (drift):"
    sed -n '1,20{s/^\(. .\).* \([^ ]*\)$/    \1 \/\2/;p}' "$stage/conflicts/changes" >&2
    [ "$count" -le 20 ] || warn "    and $((count - 20)) more"
}

# transaction_end STATUS: what the worker does last, wherever it got to; its exit code is the operator's.
transaction_end() {
    local code
    code=$1
    trap - EXIT
    if [ "$code" -eq 0 ]; then
        confirm_outcome 0
        exit 0
    fi
    trap '' TERM
    set +e
    case $phase in
    stage | conflict | nothing)
        [ -z "${stage_pid-}" ] || kill -KILL "$stage_pid" 2>/dev/null
        audit_trace "$stage/audit"
        stage_shrink "$id"
        services_resume "$stage"
        case $phase in conflict) code=3 ;; nothing) code=0 ;; *) code=9 ;; esac
        ;;
    broken) code=20 ;;
    commit)
        code=9
        audit_trace "$stage/audit"
        # The rename decides: was it reached, the migration is current and has to be taken back.
        if stack_has "$id"; then
            transaction_revert
        else
            rm -rf -- "$SYS/layers/$id" "$SYS/migrations/$id"
            stage_shrink "$id"
            services_resume "$stage"
        fi
        ;;
    finish)
        audit_settle
        transaction_revert
        ;;
    esac
    case $code in
    0)
        say 'everything is there already: no migration was made'
        stage_discard "$id"
        ;;
    3)
        stage_discard "$id"
        ;;
    9)
        stage_keep "$id" "$1"
        snapshots_sweep
        warn "$id failed; the machine is as it was before. Its log is $stage/log"
        warn '  hint: correct the migration and run it again'
        ;;
    20) warn "$id failed, and so did its revert. Run: system-migrate recover" ;;
    esac
    confirm_outcome "$code"
    exit "$code"
}
