# apply [--wait] -: one migration, as one transaction. The bundle comes on standard input. With --wait, a machine that is
# busy is waited for, and what it does is shown.
# shellcheck shell=dash

verb_apply() {
    if [ "${1-}" = --wait ]; then
        lock_patience=yes
        shift
    fi
    [ "$#" -eq 1 ] || die 100 'apply takes one bundle' 'system-migrate apply FILE, or - for standard input'
    layout
    incoming=$SYS/staging/.incoming.$$
    trap 'rm -rf -- "$incoming"' EXIT
    bundle_receive "$incoming"
    bundle_apply "$incoming"
}
