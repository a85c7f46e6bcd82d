# apply [--wait] [--confirm SECONDS] BUNDLE: one migration, as one transaction. The bundle is on standard input, whatever it
# is called. With --wait, a machine that is busy is waited for, and what it does is shown.
# shellcheck shell=dash

verb_apply() {
    local seconds
    seconds=
    while [ "$#" -gt 1 ]; do
        case $1 in
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
    [ "$#" -eq 1 ] || die 100 'apply takes one bundle' 'system-migrate apply FILE, or - for standard input'
    layout
    incoming=$SYS/staging/.incoming.$$
    rubbish=$incoming
    bundle_receive "$incoming"
    bundle_apply "$incoming" "$seconds"
}
