# The transaction of one migration, from the unpacked bundle in staging/<id> to the mark `applied`.
# shellcheck shell=dash

# transaction ID: runs it in a process of its own that outlives the operator's connection, with its output in the
# stage's log, and shows that log as it grows. Leaves with the transaction's exit code.
transaction() {
    local log worker follower status
    log=$SYS/staging/$1/log
    : >"$log"
    # From here on the lock is the worker's alone: a follower that hangs on a dead connection must not keep it.
    transaction_worker "$1" &
    worker=$!
    exec 9>&-
    trap 'kill -TERM "$worker" 2>/dev/null || :' INT TERM
    # In the background: a shell acts on a signal only once what it waits for in the foreground is over.
    follow "$worker" <"$log" &
    follower=$!
    while kill -0 "$follower" 2>/dev/null; do wait "$follower" || :; done
    status=0
    # A signal ends a wait, not the worker.
    while :; do
        status=0
        wait "$worker" || status=$?
        kill -0 "$worker" 2>/dev/null || break
    done
    [ "$status" -le 128 ] || die 20 'the transaction was killed' 'run: system-migrate recover'
    exit "$status"
}

# follow PID: copies standard input, a file that grows, to standard output until PID ends. Bytes that are no ASCII are
# shown as '?': a reader that expects UTF-8 must not fail on a script's output. Of a line that was drawn over and over,
# the last form is shown. The log keeps all of it.
follow() {
    tail -n +1 -s 0.1 -f --pid="$1" - | sed -u 's/.*\r\(.\)/\1/; s/[^[:print:][:space:]]/?/g'
}

# transaction_worker ID: the transaction proper. Nobody can hang it up; only before the commit can it be interrupted.
transaction_worker() {
    id=$1
    phase=stage
    # Here, not at the call: the exit trap speaks after a redirection of the call has ended.
    exec >>"$SYS/staging/$id/log" 2>&1 </dev/null
    trap '' HUP PIPE INT
    trap 'exit 143' TERM
    trap 'transaction_end $?' EXIT
    limit=$(plan_values timeout "$SYS/staging/$id/limits")
    before=$(generation_current)
    services_pause "$id"
    stage_prepare "$id"
    say "running the install script of $id"
    status=0
    stage_run "$id" "${limit:-1800}" &
    # In the background, so that a TERM is acted on while the script runs.
    stage_pid=$!
    wait "$stage_pid" || status=$?
    if [ -f "$SYS/staging/$id/timeout" ]; then
        warn "the install script did not end within its limit of $limit s"
        exit 9
    elif [ "$status" -ne 0 ]; then
        warn "the install script failed with status $status"
        exit "$status"
    fi
    stage_pid=
    say 'capturing what it changed'
    capture "$id"
    if [ ! -s "$SYS/staging/$id/changes.list" ] && plan_values local "$SYS/staging/$id/plan" | grep -q yes; then
        phase=nothing
        exit 3
    fi
    drift_conflicts "$id" "$SYS/staging/$id/conflicts"
    if [ -s "$SYS/staging/$id/conflicts/changes" ]; then
        phase=conflict
        exit 3
    fi
    state_each "$id" state_plan
    say "sealing $(wc -l <"$SYS/staging/$id/changes.list") changes"
    trap '' TERM
    phase=commit
    commit "$id"
    phase=finish
    finish "$id"
    say "$id is applied, generation $(generation_current) is running"
    exit 0
}

# transaction_revert: takes the commit back; leaves the outcome in $code. In a process of its own, which is waited for:
# before `||`, the shell would go on after a step that failed.
transaction_revert() {
    warn "reverting to generation $before"
    (set -e; revert "$id" "$before" live) &
    if wait "$!"; then code=9; else code=20; fi
}

# transaction_conflict: names the drift that is in the way.
transaction_conflict() {
    local count
    count=$(wc -l <"$SYS/staging/$id/conflicts/changes")
    warn "$id would change what was changed outside of migrations (drift):"
    sed -n '1,20{s/^\(. .\).* \([^ ]*\)$/    \1 \/\2/;p}' "$SYS/staging/$id/conflicts/changes" >&2
    [ "$count" -le 20 ] || warn "    and $((count - 20)) more"
    warn '  hint: to give these changes up: system-migrate drift discard PATH…; nothing was changed'
}

# transaction_end STATUS: what the worker does last, wherever it got to; its exit code is the operator's.
transaction_end() {
    local code
    code=$1
    [ "$code" -ne 0 ] || exit 0
    trap - EXIT
    trap '' TERM
    set +e
    case $phase in
    stage | conflict | nothing)
        [ -z "${stage_pid-}" ] || kill -KILL "$stage_pid" 2>/dev/null
        services_resume "$id"
        case $phase in conflict) code=3 ;; nothing) code=0 ;; *) code=9 ;; esac
        ;;
    commit)
        code=9
        # The rename decides: was it reached, the migration is current and has to be taken back.
        if stack_has "$id"; then
            transaction_revert
        else
            rm -rf -- "$SYS/layers/$id" "$SYS/migrations/$id"
            services_resume "$id"
        fi
        ;;
    finish) transaction_revert ;;
    esac
    case $code in
    0)
        say 'everything is there already: no migration was made'
        stage_discard "$id"
        ;;
    3)
        transaction_conflict
        stage_discard "$id"
        ;;
    9)
        stage_keep "$id" "$1"
        warn "$id failed; the machine is as it was before. Its log is $SYS/staging/$id/log"
        warn '  hint: correct the migration and run it again'
        ;;
    20) warn "$id failed, and so did its revert. Run: system-migrate recover" ;;
    esac
    exit "$code"
}
