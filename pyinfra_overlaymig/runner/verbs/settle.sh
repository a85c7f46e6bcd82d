# settle: the part of boot that has to wait for s6. A migration that was past its commit when the power went is finished
# (services, health check, mark) or reverted; then all services have to get ready, or the boot counts as failed.
# Not for people: `recover` does the first part.
# shellcheck shell=dash

verb_settle() {
    local booted tries late
    booted=$(generation_running)
    tries=0
    until services_supported || [ "$tries" -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    if ! generation_applied "$booted"; then
        (
            lock_take recover
            recover live
        ) &
        wait "$!" || warn 'the recovery was not finished: system-migrate recover goes on with it'
    fi
    services_supported || exit 0
    # Without the lock: a service that never gets ready must not keep operators out.
    late=$(services_late)
    lock_take boot
    if [ "$(generation_current)" != "$booted" ]; then
        exit 0
    elif [ -z "$late" ]; then
        rm -f -- "$SYS/boots"
    elif boot_failed "$booted" "$late"; then
        fallback
        recover live
    fi
}
