# confirm: says, over a new connection, that this machine can be reached after a switch that awaits it; then waits for the
# end of what was confirmed, and leaves with its exit code.
# shellcheck shell=dash

verb_confirm() {
    local code
    [ "$#" -eq 0 ] || die 100 'confirm takes no arguments' 'system-migrate confirm'
    need_root
    [ -d "$RUN/confirm" ] || exit 0
    mv -- "$RUN/confirm/awaited" "$RUN/confirm/given" 2>/dev/null || :
    until [ -f "$RUN/confirm/outcome" ] || lock_free; do sleep 0.1; done
    code=20
    [ ! -f "$RUN/confirm/outcome" ] || read -r code <"$RUN/confirm/outcome"
    case $code in
    0) say "confirmed: generation $(generation_current) is running" ;;
    9) warn 'it was taken back: the machine is as it was before' ;;
    *) die 20 'what awaited the confirmation was killed' 'run: system-migrate recover' ;;
    esac
    exit "$code"
}
