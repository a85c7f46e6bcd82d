# Adopting drift: what was changed by hand becomes a layer of its own, with a migration's record, and the running root looks
# the same as before.
# shellcheck shell=dash

# adopt LABEL CHANGES: seals the drift that CHANGES, lines as in changes.list, names. Fails when that fails.
adopt() {
    local id stage upper from
    id=$(local_id "adopt_$1")
    stage=$SYS/staging/$id
    from=$(upper_live)
    upper=$SYS/upper/$from/upper
    rm -rf -- "$stage"
    mkdir -p "$stage"
    printf '#!/bin/sh\n# This layer was changed by hand and adopted: changes.list has it.\n' >"$stage/install.sh"
    local_plan "$id" "$stage/install.sh" >"$stage/plan"
    printf 'timeout 60\n' >"$stage/limits"
    cp -- "$2" "$stage/changes.list"
    stage_prepare "$id"
    # No script runs: state is left alone.
    : >"$stage/state/paths"
    : >"$stage/state/paths.old"
    # Copies: a process may still write to a file of the upper that it has open, and a layer is never written.
    # Without recursion: of a directory whose metadata alone is adopted, nothing else is.
    # With the directories above, which would else hide those below them with an owner and mode of tar's own.
    awk '{ path = $9; do if (!seen[path]++) print path; while (sub("/[^/]*$", "", path)) }' "$2" | sort | tree_paths |
        tar -C "$upper" --null --no-recursion --xattrs --xattrs-include='*' --sparse -T - -cf - |
        tar -C "$stage/upper" --xattrs --xattrs-include='*' --same-owner -xpf -
    drift_drop "$stage" "$2"
    say "adopting $(wc -l <"$2") changes by hand as $id"
    commit "$id"
    finish "$id"
    adopt_catch_up "$upper" "$SYS/layers/$id"
}

# adopt_catch_up UPPER LAYER: what was written to a file of UPPER after it had been copied into LAYER is drift again.
adopt_catch_up() {
    local entry
    (cd "$2" && find . -type f -print0) | escaped | while IFS= read -r entry; do
        unescape "$entry"
        if [ -f "$1/$unescaped" ] && ! cmp -s -- "$1/$unescaped" "$2/$unescaped"; then
            # It may be gone by now.
            cp -a -- "$1/$unescaped" "$LIVE/$unescaped" || warn "/$entry is not carried over"
        fi
    done
}

# local_plan ID SCRIPT [LINE]: the plan of a migration that is made on this machine, to standard output.
local_plan() {
    printf 'format %s\nid %s\nlocal yes\n' "$FORMAT" "$1"
    [ -z "${3-}" ] || printf '%s\n' "$3"
    printf 'member 0755 '
    sha256sum <"$2" | sed 's/ .*/ install.sh/'
}

# local_id LABEL: the next free id of today, or of the newest migration's day if that is later, to standard output.
local_id() {
    local last day number label
    # The order of the others does not count it, but no two may have one number, those that were rolled back neither.
    last=$({ generation_stack "$(generation_current)"; find "$SYS/migrations" -mindepth 1 -maxdepth 1 -type d -printf '%f\n'; } |
        sort | tail -n 1)
    day=$(date -u +%Y%m%d)
    number=0
    if [ -n "$last" ] && [ "${last%%-*}" -ge "$day" ]; then
        day=${last%%-*}
        number=${last#*-}
        number=${number%%_*}
        # 008 would be read as octal
        while [ "${number#0}" != "$number" ]; do number=${number#0}; done
    fi
    label=$(printf '%s' "$1" | tr -c 'a-z0-9' _ | cut -c1-40)
    printf '%s-%03d_%s\n' "$day" "$((${number:-0} + 1))" "${label%_}"
}
