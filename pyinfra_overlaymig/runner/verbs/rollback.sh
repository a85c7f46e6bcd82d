# rollback [--wait] [--restore-state] [--confirm SECONDS] GENERATION|ID: goes to the stack of any kept generation, or to the one that
# has ID on top, by a new generation: history only grows. No script runs, no layer is copied. State stays as it is, unless
# the snapshots of the layers that go are to be restored.
# shellcheck shell=dash

verb_rollback() {
    local seconds restore
    seconds='' restore=''
    while [ "$#" -gt 1 ]; do
        case $1 in
        --restore-state) restore=yes ;;
        --wait) lock_patience=yes ;;
        --confirm)
            seconds=$2
            confirm_seconds "$seconds"
            shift
            ;;
        *) break ;;
        esac
        shift
    done
    [ "$#" -eq 1 ] || die 100 'rollback takes a generation or an id' 'system-migrate rollback 3; 0 is the base alone'
    layout
    lock_take rollback "$1"
    recover live
    lock_record rollback "$1"
    rollback_stack "$1" >"$RUN/rollback"
    if generation_stack "$(generation_current)" | cmp -s - "$RUN/rollback"; then
        say "generation $(generation_current) is just that already"
        exit 0
    fi
    rollback_begin
    [ -z "$restore" ] || snapshots_restore "$RUN/rollback"
    confirm_ask "$ROLLBACK" "$seconds"
    worker "$ROLLBACK/log" rollback "$RUN/rollback"
}

# rollback_stack GENERATION|ID: the stack to go to, to standard output. Leaves with 3 or 4 when there is none.
rollback_stack() {
    local n
    case $1 in
    '' | *[!0-9]*)
        n=$(rollback_generation "$1")
        [ -n "$n" ] || die 4 "no generation has $1" 'system-migrate status lists generations and what they hold'
        generation_stack "$n" | awk -v id="$1" '{ print } $0 == id { exit }'
        ;;
    *)
        n=$1
        [ "$n" = 0 ] || [ -f "$SYS/generations/$n" ] || die 4 "there is no generation $n" 'system-migrate status lists them'
        generation_whole "$n" || die 3 "generation $n is not whole any more" 'choose another one'
        generation_stack "$n"
        ;;
    esac
}

# rollback_generation ID: the newest whole generation that has ID, to standard output.
rollback_generation() {
    local n
    n=$(generation_newest)
    while [ "$n" -gt 0 ]; do
        if generation_stack "$n" | grep -qxF -- "$1" && generation_whole "$n" 2>/dev/null; then
            echo "$n"
            return
        fi
        n=$((n - 1))
    done
}
