# apply -: one migration, as one transaction. The bundle comes on standard input.
# shellcheck shell=dash

verb_apply() {
    [ "$#" -eq 1 ] || die 100 'apply takes one bundle' 'system-migrate apply FILE, or - for standard input'
    layout
    incoming=$SYS/staging/.incoming.$$
    trap 'rm -rf -- "$incoming"' EXIT
    bundle_receive "$incoming"
    bundle_apply "$incoming"
}
