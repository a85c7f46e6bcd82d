# The stage: a throwaway root over the current stack, in namespaces of its own, in which the install script runs.
# shellcheck shell=dash
#
# Its mounts live in a private mount namespace and its processes in a private pid namespace: when the runner dies,
# by whatever signal, the kernel takes all of them away and only files under staging/<id> are left.

# stage_prepare ID: the directories for a new stage of the bundle in staging/<id>.
stage_prepare() {
    local service
    mkdir -p "$SYS/staging/$1/upper" "$SYS/staging/$1/work" "$SYS/staging/$1/root" "$SYS/staging/$1/state"
    chmod --reference=/ "$SYS/staging/$1/upper"
    for service in $(plan_values service "$SYS/staging/$1/plan"); do
        [ -e "$STATE/services/$service" ] || echo "$service"
    done >"$SYS/staging/$1/services.new"
    stack_state >"$SYS/staging/$1/state/paths.old"
    { cat "$SYS/staging/$1/state/paths.old"; plan_values state "$SYS/staging/$1/plan"; } |
        sort -u >"$SYS/staging/$1/state/paths"
}

# stage_clear ID: makes room for another run of the script, over a stack that has changed.
stage_clear() {
    local part
    for part in upper work root lower lists state conflicts audit timeout services.new; do
        drop "$SYS/staging/$1/$part"
    done
}

# stage_run ID SECONDS: becomes the stage, so only ever to be called with `&`: runs the install script; its exit status is the result, 124 when it ran out of time.
# `setpriv` and `--kill-child`: a chain of parent-death signals, so that a killed runner leaves no script behind.
stage_run() {
    # All that it can change are overlays over these.
    printf '%d\n' "0x$(stat -f -c %t -- "$SYS/staging/$1/upper")" >"$SYS/staging/$1/audit/uppers"
    audit_enter "$SYS/staging/$1/audit" || :
    exec setpriv --pdeathsig KILL \
        unshare --mount --pid --fork --kill-child --propagation private -- \
        /bin/sh "$HERE/stage/init.sh" "$HERE" "$1" "$2" </dev/null
}

# stage_unread ID: waits until nobody explains the stage any more: what a runner began that was killed goes on to its end.
stage_unread() {
    [ ! -f "$SYS/staging/$1/audit/lock" ] || flock "$SYS/staging/$1/audit/lock" true
}

# stage_discard ID: drops a stage altogether.
stage_discard() {
    stage_unread "$1"
    rm -rf -- "$SYS/staging/$1"
}

# stage_shrink ID: drops what is no evidence, and what the script had made when that is not small or the disk is nearly
# full: services that start again may need room.
stage_shrink() {
    local part
    stage_unread "$1"
    for part in work root lower lists state stack conflicts audit drift layers timeout services.new record.new; do
        drop "$SYS/staging/$1/$part"
    done
    if [ "$(du -skx "$SYS/staging/$1" | cut -f 1)" -gt 102400 ] || stage_crowded; then
        rm -rf -- "$SYS/staging/$1/upper" "$SYS/staging/$1/files"
    fi
}

# stage_crowded: true when less than 64 MB or 2048 inodes are free. A file system that counts no inodes says it has none.
stage_crowded() {
    # shellcheck disable=SC2046 # four numbers
    set -- $(stat -f -c '%a %S %d %c' "$SYS")
    [ "$(($1 * $2 / 1048576))" -lt 64 ] || { [ "$4" -gt 0 ] && [ "$3" -lt 2048 ]; }
}

# stage_keep ID EXIT: turns the stage into evidence: the bundle, the log and, when it is small, what the script had
# made. Of all evidence the newest three are kept.
stage_keep() {
    local dir
    stage_shrink "$1"
    write_file "$SYS/staging/$1/failed" "failed_at $(now)
exit $2"
    find "$SYS/staging" -mindepth 2 -maxdepth 2 -name failed -printf '%T@ %h\n' | sort -rn | tail -n +4 |
        cut -d ' ' -f 2 | while read -r dir; do evidence_drop "$dir"; done
}

# evidence_drop STAGE: gives evidence up. Not in place: half of it would look like a stage that was interrupted.
evidence_drop() {
    mv -T -- "$1" "$1.new"
    rm -rf -- "$1.new"
}
