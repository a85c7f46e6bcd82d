# State: what a stage did to state paths becomes the machine's after the commit, and can be taken back until the
# migration is marked as applied. All by renames that can be repeated; nothing is decided from the live state twice.
# shellcheck shell=dash
#
# The journal is a directory: staging/<id> of a migration, rollback of a rollback that restores state.
#
#   publishing         there from the commit on: only then is there anything to take back
#   state/paths        the state paths, one a line; the k-th one's:
#   state/<k>/tree     the whole contents of a state path that is new to the machine; or
#             snapshot -> the snapshot that takes the place of the whole path; or
#             gone     the path goes altogether, as it did not exist when the snapshot was taken; or
#             upper    what changed over `lower`, the live state, as an overlay's upper directory
#             dirs     directories on both sides: only their metadata is taken over
#             new had  the entries to rename: into a free place, in place of what is there
#             metadata of `dirs`, as it was: mode, owner, path
#             old      what was replaced: the `had` entries, or the whole path

# state_each JOURNAL FUNCTION: calls FUNCTION with the directory of each state path in JOURNAL and its live place.
state_each() {
    local number path
    [ -f "$1/state/paths" ] || return 0
    number=0
    while read -r path; do
        number=$((number + 1))
        unescape "$path"
        "$2" "$1/state/$number" "$STATE$unescaped"
    done <"$1/state/paths"
}

# state_place ROOT PATH: leaves in $contents where in ROOT the contents of a state path are seen: at PATH, or, where the layers
# have a link there, at what that means in ROOT. The link itself would lead out of ROOT.
state_place() {
    contents=$1$2
    [ "$(readlink -- "$contents")" != "$STATE$2" ] || contents=$1$STATE$2
}

# state_take_back JOURNAL: undoes what was published, if anything was.
state_take_back() {
    if [ -f "$1/publishing" ]; then
        state_each "$1" state_restore
        services_forget "$1"
        rm -f -- "$1/publishing"
    fi
}

# state_keep JOURNAL NAME: what was replaced stays under replaced/NAME until the next change of the machine.
state_keep() {
    state_drop_replaced
    [ -f "$1/state/paths" ] || return 0
    mkdir -p "$REPLACED"
    mv -T -- "$1/state" "$REPLACED/$2"
}

# state_drop_replaced: gives up what the change before the last one had replaced.
state_drop_replaced() { drop "$REPLACED"; }

# plain_dir PATH: true when PATH is a directory itself, no link to one.
plain_dir() { [ -d "$1" ] && [ ! -L "$1" ]; }

# opaque PATH: true when a directory of an upper hides all that lies below it.
opaque() { getfattr -h --only-values -n trusted.overlay.opaque -- "$1" 2>/dev/null | grep -q y; }

# state_plan DIR LIVE [BELOW]: before the commit, writes down what publishing will do to a path that exists. A directory
# that is on both sides and not opaque is gone into, anything else is one entry.
state_plan() {
    local entry level
    [ -L "$1/lower" ] || return 0
    if [ -z "${3-}" ]; then
        mkdir -p "$1/old"
        : >"$1/dirs"; : >"$1/new"; : >"$1/had"; : >"$1/metadata"
    fi
    printf '%s\n' "${3-.}" >>"$1/dirs"
    unescape "${3-.}"
    printf '%s %s\n' "$(stat -c '%a %u:%g' -- "$2/$unescaped")" "${3-.}" >>"$1/metadata"
    (cd "$1/upper/$unescaped" && find . -mindepth 1 -maxdepth 1 -printf '%P\0') | escaped | sort >"$1/level.$$"
    # Read whole: the recursion writes a list of its own. By an assignment: as an argument, a failure would go unseen, and
    # an empty list means that there is nothing to publish.
    level=$(cat "$1/level.$$")
    set -- "$1" "$2" "${3-.}" "$level"
    rm -f -- "$1/level.$$"
    while IFS= read -r entry; do
        [ -n "$entry" ] || continue
        entry=$3/$entry
        unescape "$entry"
        if plain_dir "$1/upper/$unescaped" && plain_dir "$2/$unescaped" && ! opaque "$1/upper/$unescaped"; then
            state_plan "$1" "$2" "$entry"
        elif there "$2/$unescaped"; then
            printf '%s\n' "$entry" >>"$1/had"
        else
            printf '%s\n' "$entry" >>"$1/new"
        fi
    done <<END
$4
END
}

# state_publish DIR LIVE: makes it the machine's. An entry that is gone from the stage was published before.
state_publish() {
    local entry
    if [ -d "$1/tree" ]; then
        mkdir -p -- "${2%/*}"
        mv -T -- "$1/tree" "$2"
    elif [ -L "$1/snapshot" ]; then
        [ -d "$1/snapshot" ] || return 0
        if there "$2" && ! there "$1/old"; then mv -T -- "$2" "$1/old"; fi
        mkdir -p -- "${2%/*}"
        mv -T -- "$(readlink -- "$1/snapshot")" "$2"
    elif [ -f "$1/gone" ]; then
        if there "$2"; then mv -T -- "$2" "$1/old"; fi
    elif [ -f "$1/dirs" ]; then
        while IFS= read -r entry; do
            unescape "$entry"
            chown --reference="$1/upper/$unescaped" -- "$2/$unescaped"
            chmod --reference="$1/upper/$unescaped" -- "$2/$unescaped"
        done <"$1/dirs"
        while IFS= read -r entry; do
            unescape "$entry"
            state_set_aside "$2/$unescaped" "$1/old/$unescaped"
            state_put "$1/upper/$unescaped" "$2/$unescaped"
        done <"$1/had"
        while IFS= read -r entry; do
            unescape "$entry"
            state_put "$1/upper/$unescaped" "$2/$unescaped"
        done <"$1/new"
    fi
}

# state_set_aside LIVE OLD: keeps what is about to be replaced, once. A file stays in its place until the rename over
# it, so that a reader sees the old one or the new one; a directory cannot be renamed over.
state_set_aside() {
    if there "$2" || ! there "$1"; then return; fi
    mkdir -p -- "${2%/*}"
    if plain_dir "$1"; then mv -T -- "$1" "$2"; else ln -T -- "$1" "$2"; fi
}

# state_put STAGED LIVE: one entry; a whiteout takes LIVE away.
state_put() {
    if [ -c "$1" ] && [ "$(stat -c %t:%T -- "$1")" = 0:0 ]; then
        rm -f -- "$2"
        rm -f -- "$1"
    elif there "$1"; then
        # A directory stands where a file was, or the other way round: that one has been set aside.
        if plain_dir "$1" && there "$2"; then rm -f -- "$2"; fi
        mv -fT -- "$1" "$2"
    fi
}

# state_restore DIR LIVE: takes it back: entries that were new go, what was replaced returns, metadata is as it was.
state_restore() {
    local entry mode owner
    if [ -L "$1/snapshot" ] || [ -f "$1/gone" ]; then
        if [ -L "$1/snapshot" ] && [ ! -d "$1/snapshot" ] && [ -d "$2" ]; then
            mv -T -- "$2" "$(readlink -- "$1/snapshot")"
        fi
        [ ! -d "$1/old" ] || mv -T -- "$1/old" "$2"
    elif [ ! -L "$1/lower" ]; then
        # New with this migration: back to the stage. Where the tree is still there, it was not published.
        if [ ! -d "$1/tree" ] && [ -d "$2" ]; then
            mv -T -- "$2" "$1/tree"
            state_prune "$2"
        fi
    elif [ -f "$1/dirs" ]; then
        while IFS= read -r entry; do
            unescape "$entry"
            rm -rf -- "${2:?}/$unescaped"
        done <"$1/new"
        while IFS= read -r entry; do
            unescape "$entry"
            there "$1/old/$unescaped" || continue
            if plain_dir "$1/old/$unescaped" || plain_dir "$2/$unescaped"; then rm -rf -- "${2:?}/$unescaped"; fi
            if [ "$(stat -c %d:%i -- "$1/old/$unescaped")" = "$(stat -c %d:%i -- "$2/$unescaped" 2>/dev/null)" ]; then
                # Set aside and not yet replaced: mv(1) refuses to rename a file over another name of it.
                rm -f -- "$1/old/$unescaped"
            else
                # What ran on the new state may have moved or removed the directory.
                state_directory "$2/$unescaped"
                mv -fT -- "$1/old/$unescaped" "$2/$unescaped"
            fi
        done <"$1/had"
        while IFS= read -r entry; do
            mode=${entry%% *}
            entry=${entry#* }
            owner=${entry%% *}
            unescape "${entry#* }"
            state_directory "$2/$unescaped/."
            chown "$owner" -- "$2/$unescaped"
            chmod "$mode" -- "$2/$unescaped"
        done <"$1/metadata"
    fi
}

# state_directory PATH: the directory that PATH lies in is there, in place of whatever is there instead.
state_directory() {
    local above
    above=${1%/*}
    plain_dir "$above" && return
    state_directory "$above"
    rm -f -- "$above"
    mkdir -- "$above"
}

# state_prune PATH: removes the directories above PATH, below /data/state, as far as they are empty.
state_prune() {
    local above
    above=${1%/*}
    while [ "${above#"$STATE"/}" != "$above" ] && rmdir -- "$above" 2>/dev/null; do above=${above%/*}; done
}
