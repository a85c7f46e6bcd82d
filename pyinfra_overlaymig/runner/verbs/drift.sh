# drift: what was changed outside of migrations, one line for each path, as FORMAT.md describes changes.list.
# drift discard PATH…: gives such changes up, and what was made by hand below these paths.
# drift adopt PATH…: seals them as a layer of their own.
# shellcheck shell=dash

verb_drift() {
    case ${1-} in
    '') drift_show ;;
    discard)
        shift
        drift_select discard "$@"
        mkdir -p "$SYS/upper/change.new"
        sed 's/^/C f - - - - - - /' "$RUN/selected" >"$SYS/upper/change.new/drop"
        mv -T -- "$SYS/upper/change.new" "$SYS/upper/change"
        switch_live
        say "given up: $#"
        ;;
    adopt)
        shift
        drift_select adopt "$@"
        lists=$RUN/adopt
        rm -rf -- "$lists"
        mkdir -p "$lists"
        tree_paths <"$RUN/selected" | (cd "$SYS/upper/$(upper_live)/upper" && xargs -0 -I '{}' find '{}' -print0) |
            sort -zu >"$lists/paths"
        drift_compare "$(upper_live)" "$lists"
        [ -s "$lists/changes" ] || die 4 'nothing there differs from the generation' 'system-migrate drift lists what does'
        worker "$RUN/adopt.log" drift_adopt "$lists/changes"
        ;;
    *) die 100 "drift knows no $1" 'system-migrate drift, drift discard PATH…, or drift adopt PATH…' ;;
    esac
}

# drift_adopt CHANGES: adopt, as a worker.
drift_adopt() {
    local name
    trap '' HUP PIPE INT TERM
    name=$(sed -n '1{s/.* //; s,.*/,,; p}' "$1" | tr '[:upper:]' '[:lower:]')
    (adopt "$name" "$1") &
    if ! wait "$!"; then
        recover live
        die 9 'the drift was not adopted; the machine is as it was before' 'the reason is above'
    fi
    say "generation $(generation_current) is running"
}

# drift_select VERB PATH…: takes the lock and leaves the paths, escaped, in $RUN/selected. Leaves with 4 when one is no drift.
drift_select() {
    local path verb
    verb=$1
    shift
    [ "$#" -gt 0 ] || die 100 "drift $verb takes paths" "system-migrate drift $verb /etc/motd"
    layout
    lock_take drift
    recover live
    : >"$RUN/selected"
    for path; do
        path=${path#/}
        if [ -z "$path" ] || ! there "$SYS/upper/$(upper_live)/upper/$path"; then
            die 4 "/$path is not drift" 'system-migrate drift lists what is'
        fi
        printf '%s\0' "$path" | tree_lines >>"$RUN/selected"
    done
}

# drift_show: compares the whole upper with the stack. Without a lock: a switch meanwhile shows in the next call.
drift_show() {
    local live
    live=$(upper_live)
    [ -d "$SYS/upper/$live/upper" ] || exit 0
    lists=$RUN/drift.$$
    rubbish=$lists
    mkdir -p "$lists"
    (cd "$SYS/upper/$live/upper" && find . -mindepth 1 -print0) >"$lists/paths"
    drift_compare "$live" "$lists"
    cat "$lists/changes"
}
