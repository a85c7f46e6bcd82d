# Confirmation: the operator's side says over a new connection that the machine can still be reached after a switch.
# Without it within the limit, the machine goes back by itself.
# shellcheck shell=dash
#
#   JOURNAL/confirm              the limit in seconds; removed once it is confirmed. A journal that has it and was
#                                interrupted is taken back
#   /run/system-migrate/confirm/ awaited    renamed to `given` by the one side, to `expired` by the other
#                                outcome    the exit code of what was confirmed or not

# confirm_seconds TEXT: leaves with 100 unless TEXT can be a limit.
confirm_seconds() {
    case $1 in
    [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
    *) die 100 "--confirm takes seconds, not '$1'" 'system-migrate apply --confirm 60 FILE' ;;
    esac
}

# confirm_ask JOURNAL SECONDS: from now on JOURNAL has to be confirmed; not so without SECONDS.
confirm_ask() {
    [ -z "$2" ] || printf '%s\n' "$2" >"$1/confirm"
}

# confirm_await JOURNAL: waits for the confirmation, if one was asked for. Fails when it does not come.
confirm_await() {
    local limit until
    [ -f "$1/confirm" ] || return 0
    limit=$(cat "$1/confirm")
    mkdir -p "$RUN/confirm"
    say "waiting up to $limit s for a new connection"
    : >"$RUN/confirm/awaited"
    until=$(($(date +%s) + limit))
    while [ -f "$RUN/confirm/awaited" ] && [ "$(date +%s)" -le "$until" ]; do sleep 0.1; done
    if mv -- "$RUN/confirm/awaited" "$RUN/confirm/expired" 2>/dev/null; then
        warn "no new connection came within $limit s: this machine may be out of reach"
        return 1
    fi
    rm -f -- "$1/confirm"
}

# confirm_outcome CODE: tells the side that confirmed how it ended.
confirm_outcome() {
    [ ! -d "$RUN/confirm" ] || write_file "$RUN/confirm/outcome" "$1"
}
