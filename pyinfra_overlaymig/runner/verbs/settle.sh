# settle: the part of boot that has to wait for s6: a migration that was past its commit when the power went is
# finished (services, health check, mark) or reverted. Not for people: `recover` is the same.
# shellcheck shell=dash

verb_settle() {
    local pending layer tries
    pending=
    for layer in $(generation_stack "$(generation_current)"); do
        [ -f "$SYS/migrations/$layer/applied" ] || pending=yes
    done
    [ -n "$pending" ] || exit 0
    tries=0
    until services_supported || [ "$tries" -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    lock_take recover
    recover live
}
