# drift: what was changed outside of migrations, one line for each path, as FORMAT.md describes changes.list.
# drift discard PATH…: gives such changes up, and what was made by hand below these paths.
# shellcheck shell=dash

verb_drift() {
    local path
    case ${1-} in
    '') drift_show ;;
    discard)
        shift
        [ "$#" -gt 0 ] || die 100 'drift discard takes paths' 'system-migrate drift discard /etc/motd'
        layout
        lock_take drift
        recover live
        : >"$RUN/discard.new"
        for path; do
            path=${path#/}
            if [ -z "$path" ] || ! there "$SYS/upper/$(upper_live)/upper/$path"; then
                die 4 "/$path is not drift" 'system-migrate drift lists what is'
            fi
            printf '%s\0' "$path" | tree_lines >>"$RUN/discard.new"
        done
        mv -f "$RUN/discard.new" "$RUN/discard"
        switch_live
        say "given up: $#"
        ;;
    *) die 100 "drift knows no $1" 'system-migrate drift, or system-migrate drift discard PATH…' ;;
    esac
}

# drift_show: compares the whole upper with the stack. Without a lock: a switch meanwhile shows in the next call.
drift_show() {
    local live
    live=$(upper_live)
    [ -d "$SYS/upper/$live/upper" ] || exit 0
    lists=$RUN/drift.$$
    trap 'rm -rf -- "$lists"' EXIT
    mkdir -p "$lists"
    (cd "$SYS/upper/$live/upper" && find . -mindepth 1 -print0) >"$lists/paths"
    drift_compare "$live" "$lists"
    cat "$lists/changes"
}
