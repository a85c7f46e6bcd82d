# Snapshots of state: what a migration with `snapshot: true` found in its state paths, for a rollback with --restore-state.
# shellcheck shell=dash
#
#   snapshots/<id>/paths   state paths, one a line; there once the snapshot is complete
#   snapshots/<id>/<k>     the k-th one's contents; nothing when it did not exist
#
# A snapshot means something as long as its layer is in the current stack: it is taken each time the layer comes onto it,
# and goes when the layer leaves it.

# snapshot_wanted LIMITS: true for a migration that asks for snapshots.
snapshot_wanted() { plan_says snapshot "$1"; }

# snapshot_take ID PLAN: takes it. What uses these paths has to stand still. A file system that can shares the blocks.
snapshot_take() {
    local number path
    rm -rf -- "${SNAPSHOTS:?}/$1" "$SNAPSHOTS/$1.new"
    mkdir -p "$SNAPSHOTS/$1.new"
    plan_values state "$2" >"$SNAPSHOTS/$1.new/paths"
    number=0
    while read -r path; do
        number=$((number + 1))
        unescape "$path"
        if plain_dir "$STATE$unescaped"; then
            say "taking a snapshot of $path"
            cp -a --reflink=auto -- "$STATE$unescaped" "$SNAPSHOTS/$1.new/$number"
        fi
    done <"$SNAPSHOTS/$1.new/paths"
    mv -T -- "$SNAPSHOTS/$1.new" "$SNAPSHOTS/$1"
}

# snapshot_space BUNDLE: the KiB that its snapshot would take, to standard output; 0 where blocks are shared.
snapshot_space() {
    local sum path
    sum=0
    if snapshot_wanted "$1/limits" && ! snapshots_share; then
        for path in $(plan_values state "$1/plan"); do
            unescape "$path"
            [ ! -d "$STATE$unescaped" ] || sum=$((sum + $(du -skx -- "$STATE$unescaped" | cut -f 1)))
        done
    fi
    echo "$sum"
}

# snapshots_share: true where a copy shares its blocks with the original.
snapshots_share() {
    local probe shared
    probe=$SYS/staging/.reflink.$$
    shared=
    ! cp --reflink=always -- "$HERE/system-migrate" "$probe" 2>/dev/null || shared=yes
    # Where it cannot, cp leaves an empty file.
    rm -f -- "$probe"
    [ -n "$shared" ]
}

# snapshots_due: takes the snapshots of the layers that a rollback's stack has and the one before has not; the services
# that use their state stand still from here on.
snapshots_due() {
    local layer
    sort "$ROLLBACK/before" "$ROLLBACK/before" "$ROLLBACK/stack" | uniq -u | while read -r layer; do
        snapshot_wanted "$SYS/migrations/$layer/limits" || continue
        plan_values state "$SYS/migrations/$layer/manifest" >"$ROLLBACK/paths"
        # shellcheck disable=SC2046 # one word for each service
        services_pause "$ROLLBACK" $(services_needing $(services_of "$ROLLBACK/paths" "$ROLLBACK/before"))
        snapshot_take "$layer" "$SYS/migrations/$layer/manifest"
    done
}

# snapshots_sweep: drops those of layers that are not in the current stack.
snapshots_sweep() {
    local dir
    for dir in "$SNAPSHOTS"/*/; do
        dir=${dir%/}
        [ ! -d "$dir" ] || stack_has "${dir##*/}" || rm -rf -- "$dir"
    done
}

# snapshots_restore STACK-FILE: prepares a rollback to that stack to bring state back: of each path, the snapshot that the
# lowest layer that goes has. Leaves with 3 when there is none.
snapshots_restore() {
    local layer number entry path
    generation_stack "$(generation_current)" >"$ROLLBACK/before"
    mkdir -p "$ROLLBACK/state"
    : >"$ROLLBACK/state/paths"
    sort "$ROLLBACK/before" "$1" "$1" | uniq -u >"$ROLLBACK/going"
    grep -xF -f "$ROLLBACK/going" "$ROLLBACK/before" | while read -r layer; do
        [ -f "$SNAPSHOTS/$layer/paths" ] || continue
        entry=0
        while read -r path; do
            entry=$((entry + 1))
            ! grep -qxF -- "$path" "$ROLLBACK/state/paths" || continue
            echo "$path" >>"$ROLLBACK/state/paths"
            number=$(wc -l <"$ROLLBACK/state/paths")
            mkdir "$ROLLBACK/state/$number"
            if [ -d "$SNAPSHOTS/$layer/$entry" ]; then
                ln -s "$SNAPSHOTS/$layer/$entry" "$ROLLBACK/state/$number/snapshot"
            else
                : >"$ROLLBACK/state/$number/gone"
            fi
        done <"$SNAPSHOTS/$layer/paths"
    done
    [ -s "$ROLLBACK/state/paths" ] ||
        die 3 'none of the layers that would go has a snapshot of state' 'leave --restore-state out; a migration has one that says: snapshot: true'
    # A service of either generation may write to these paths.
    { services_of "$ROLLBACK/state/paths" "$ROLLBACK/before"; services_of "$ROLLBACK/state/paths" "$1"; } |
        sort -u >"$ROLLBACK/services"
}
