# Drift: what lies in the running root's upper, that is, what was changed outside of migrations.
# shellcheck shell=dash

# drift_generation N: the generation that upper N was mounted over, to standard output.
drift_generation() {
    local line
    line "$SYS/upper/$1/generation"
    if [ -n "$line" ]; then echo "$line"; else generation_running; fi
}

# drift_compare N DIR: compares the entries of upper N that DIR/paths names with the stack below; leaves the lists of
# `compare` in DIR.
drift_compare() {
    setpriv --pdeathsig KILL unshare --mount --propagation private -- \
        /bin/sh "$HERE/stage/drift.sh" "$HERE" "$SYS/upper/$1/upper" "$(drift_generation "$1")" "$2" </dev/null
}

# drift_overlap N CHANGES DIR: leaves in DIR/paths the entries of upper N that meet one of CHANGES, lines as in
# changes.list: at its path, below something that is no directory any more, or above it without being one. A directory
# meets another one only in its metadata.
drift_overlap() {
    mkdir -p "$3"
    : >"$3/paths"
    [ -d "$SYS/upper/$1/upper" ] || return 0
    (cd "$SYS/upper/$1/upper" && find . -mindepth 1 -printf '%p\0%l\0%y:%m:%U:%G\0') | tree_records >"$3/drift"
    (cd "$SYS/upper/$1/upper" && find . -mindepth 1 -type d -print0 | tree_attributes) >"$3/drift.attributes"
    awk -F '\t' '
        part == 1 {
            split($0, word, " ")
            path = word[9]
            if (word[2] == "d") directory[path] = "d:" word[3] ":" word[4] ":" word[5]; else changed[path]
            while (sub("/[^/]*$", "", path)) holds[path]
            next
        }
        part == 2 { if ($2 ~ /opaque/) opaque[$1]; next }
        {
            path = $1
            if ($3 ~ /^d/ && !($1 in opaque)) meets = path in changed || (path in directory && directory[path] != $3)
            else meets = path in changed || path in directory || path in holds
            while (!meets && sub("/[^/]*$", "", path)) meets = path in changed
        }
        meets' part=1 "$2" part=2 "$3/drift.attributes" part=3 "$3/drift" | tree_paths >"$3/paths"
}

# drift_conflicts ID DIR: leaves in DIR/changes the drift that a stage's changes would meet, in DIR/unchanged what only
# looks like it: files that were opened for writing and left as they were.
drift_conflicts() {
    drop "$2"
    drift_overlap "$(upper_live)" "$SYS/staging/$1/changes.list" "$2"
    : >"$2/changes"
    if [ -s "$2/paths" ]; then
        drift_compare "$(upper_live)" "$2"
        # A directory that both have made: they meet in its metadata, and in nothing that lies in it.
        awk 'FNR == NR { if ($2 == "d") directory[$9]; next } $1 == "A" && $2 == "d" && $9 in directory { $1 = "M" } { print }' \
            "$SYS/staging/$1/changes.list" "$2/changes" >"$2/changes.new"
        mv -f -- "$2/changes.new" "$2/changes"
    fi
}

# drift_release FROM TO: takes out of the clone TO of upper FROM what is no drift and would hide a change between the
# generation of FROM and the current one. Nothing else: a file that a process holds open stays the one it writes to.
drift_release() {
    local lists layer file entry
    lists=$RUN/release
    drop "$lists"
    mkdir -p "$lists"
    generation_stack "$(drift_generation "$1")" >"$lists/before"
    generation_stack "$(generation_current)" >"$lists/after"
    sort "$lists/before" "$lists/after" | uniq -u | while read -r layer; do
        for file in "$SYS/migrations/$layer/changes.list" "$SYS/staging/$layer/changes.list"; do
            [ ! -f "$file" ] || cat "$file"
        done
    done >"$lists/differences"
    [ -s "$lists/differences" ] || return 0
    # The stack that it drifted from may be gone: what is left of a revert at boot.
    generation_whole "$(drift_generation "$1")" 2>/dev/null || return 0
    drift_overlap "$1" "$lists/differences" "$lists"
    [ -s "$lists/paths" ] || return 0
    drift_compare "$1" "$lists"
    (
        cd "$SYS/upper/$2/upper" || exit
        tree_paths <"$lists/unchanged" | xargs -0 -r rm -f --
        # A directory that only carries drift takes over the metadata that the new stack gives it.
        tree_paths <"$lists/unchanged.dirs" | escaped >"$lists/carriers"
        while IFS= read -r entry; do
            unescape "$entry"
            drift_metadata "$unescaped"
        done <"$lists/carriers"
    )
}

# What a switch is to do to the drift, in upper/change:
#   drop       entries to leave out of the new upper, lines as in changes.list; of a directory that differs only in its
#              metadata, just that is given up
#   bring/     a tree as of an upper, of entries to put back where they are missing

# drift_change CLONE: does it to the clone of an upper.
drift_change() {
    local change entry
    change=$SYS/upper/change
    if [ -f "$change/drop" ]; then
        (
            cd "$SYS/upper/$1/upper" || exit
            drift_entries 'M d' <"$change/drop" | escaped >"$RUN/metadata"
            drift_entries '' <"$change/drop" | xargs -0 -r rm -rf --
            while IFS= read -r entry; do
                unescape "$entry"
                drift_metadata "$unescaped"
            done <"$RUN/metadata"
        )
    fi
    if [ -d "$change/bring" ]; then cp -aln -- "$change/bring/." "$SYS/upper/$1/upper/"; fi
}

# drift_entries OP: of lines as in changes.list, the paths of those that begin with OP, without one of all the others than
# `M d`; NUL-separated.
drift_entries() {
    awk -v op="$1" '(op == "" && $0 !~ /^M d/) || (op != "" && index($0, op " ") == 1) { print $9 }' | tree_paths
}

# drift_drop JOURNAL CHANGES: prepares a migration to give drift up, lines as in changes.list; what it was stays in JOURNAL,
# for its undo.
drift_drop() {
    rm -rf -- "$1/drift"
    mkdir -p "$1/drift/bring"
    (cd "$SYS/upper/$(upper_live)/upper" && cut -d ' ' -f 9 "$2" | tree_paths |
        xargs -0 -r cp -al --parents -t "$1/drift/bring" --)
    cp -- "$2" "$1/drift/drop"
}

# drift_dropped JOURNAL drop|bring: has the next switch do what drift_drop prepared, or undo it.
drift_dropped() {
    [ -f "$1/drift/drop" ] || return 0
    rm -rf -- "$SYS/upper/change" "$SYS/upper/change.new"
    mkdir "$SYS/upper/change.new"
    if [ "$2" = drop ]; then
        cp -- "$1/drift/drop" "$SYS/upper/change.new/drop"
    else
        cp -al -- "$1/drift/bring" "$SYS/upper/change.new/bring"
    fi
    mv -T -- "$SYS/upper/change.new" "$SYS/upper/change"
}

# drift_metadata DIRECTORY: in a clone, gives DIRECTORY the metadata of the topmost layer of the current stack, or of the
# base, that has it.
drift_metadata() {
    local layer source
    source=/$1
    for layer in $(generation_stack "$(generation_current)"); do
        [ ! -d "$SYS/layers/$layer/$1" ] || source=$SYS/layers/$layer/$1
    done
    [ ! -d "$source" ] || { chown --reference="$source" -- "$1" && chmod --reference="$source" -- "$1"; }
}
