# gc: gives up what is kept only for a person to look at: what the last change of the machine replaced in state, and what is left
# of migrations that failed.
# shellcheck shell=dash

verb_gc() {
    local kept dir size
    [ "$#" -eq 0 ] || die 100 'gc takes no arguments' 'system-migrate gc'
    layout
    lock_take gc
    recover live
    kept=
    for dir in "$REPLACED"/*/ "$SYS/staging"/*/failed; do
        there "$dir" || continue
        kept=yes
        dir=${dir%/failed}
        dir=${dir%/}
        size=$(du -skx -- "$dir" | cut -f 1)
        case $dir in
        "$REPLACED"/*)
            say "giving up what ${dir##*/} replaced in state ($size KiB)"
            rm -rf -- "$dir"
            ;;
        *)
            say "giving up what is left of ${dir##*/}, which failed ($size KiB)"
            evidence_drop "$dir"
            ;;
        esac
    done
    state_drop_replaced
    [ -n "$kept" ] || say 'nothing is kept that could go'
}
