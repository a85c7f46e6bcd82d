# Work that outlives the operator's connection: a process of its own, whose output goes to a log, which is shown as it grows.
# shellcheck shell=dash

# worker LOG FUNCTION ARGUMENT…: runs FUNCTION that way. Leaves with its exit code, or with 0 as soon as it awaits a
# confirmation: `system-migrate confirm` then has its exit code.
worker() {
    local log worker gate follower status
    log=$1
    shift
    : >"$log"
    drop "$RUN/confirm"
    (
        # Here, not at the call: an exit trap speaks after a redirection of the call has ended.
        exec >>"$log" 2>&1 </dev/null
        "$@"
    ) &
    worker=$!
    # From here on the lock is the worker's alone: a follower that hangs on a dead connection must not keep it.
    exec 9>&-
    trap 'kill -TERM "$worker" 2>/dev/null || :' INT TERM
    worker_gate "$worker" &
    gate=$!
    # In the background: a shell acts on a signal only once what it waits for in the foreground is over.
    follow "$gate" <"$log" &
    follower=$!
    while kill -0 "$follower" 2>/dev/null; do wait "$follower" || :; done
    if kill -0 "$worker" 2>/dev/null; then
        [ ! -d "$RUN/confirm" ] || exit 0
        # Nobody reads any more, and that before the switch: no confirmation will come, and none that does not come says
        # that the machine is out of reach.
        rm -f -- "${log%/*}/confirm"
    fi
    # A signal ends a wait, not the worker.
    while :; do
        status=0
        wait "$worker" || status=$?
        kill -0 "$worker" 2>/dev/null || break
    done
    [ "$status" -le 128 ] || die 20 'the transaction was killed' 'run: system-migrate recover'
    exit "$status"
}

# worker_gate PID: ends when PID has ended or awaits a confirmation.
worker_gate() {
    while kill -0 "$1" 2>/dev/null && [ ! -d "$RUN/confirm" ]; do sleep 0.1; done
}

# follow PID: copies standard input, a file that grows, to standard output until PID ends. Bytes that are no ASCII are
# shown as '?': a reader that expects UTF-8 must not fail on a script's output. Of a line that was drawn over and over,
# the last form is shown. The log keeps all of it.
follow() {
    tail -n +1 -s 0.1 -f --pid="$1" - | sed -u 's/.*\r\(.\)/\1/; s/[^[:print:][:space:]]/?/g'
}
