# From a finished stage to a sealed layer, a generation, and state. Every step can be done twice.
# shellcheck shell=dash
#
# Before generation_set all of this can be thrown away (transaction_undo), after it all can be completed (finish).

# capture ID: writes changes.list of the stage, in a mount namespace that ends with it.
capture() {
    setpriv --pdeathsig KILL unshare --mount --propagation private -- \
        /bin/sh "$HERE/stage/capture.sh" "$HERE" "$1" </dev/null
}

# drift_conflicts ID: the paths of the running root's drift that a stage's changes overlap, one a line.
drift_conflicts() {
    local upper
    upper=$SYS/upper/$(upper_live)/upper
    [ -d "$upper" ] || return 0
    (cd "$upper" && find . -mindepth 1 -printf '%y %P\0') |
        sed -z 's/\\/\\134/g; s/\n/\\012/g; s/\t/\\011/g; s/^\(.\) /\1\t/; s/ /\\040/g' | tr '\0' '\n' |
        awk -F '\t' '
            part == 1 { split($0, word, " "); if (word[2] != "d") changed[word[9]]; next }
            { path = $2; hit = path in changed && $1 != "d" }
            { while (!hit && sub("/[^/]*$", "", path) && path != "") hit = path in changed }
            hit { print $2 }' part=1 "$SYS/staging/$1/changes.list" part=2 -
}

# seal ID GENERATION: the stage's upper becomes the layer, its records the migration's folder.
seal() {
    local stage record
    stage=$SYS/staging/$1
    record=$stage/record.new
    mkdir -p "$record"
    cp -- "$stage/plan" "$record/manifest"
    cp -- "$stage/install.sh" "$record/install_script.sh"
    cp -- "$stage/limits" "$record/limits"
    [ ! -f "$stage/verify.sh" ] || cp -- "$stage/verify.sh" "$record/verify.sh"
    cp -- "$stage/changes.list" "$record/changes.list"
    {
        printf 'format %s\ndigest %s\ngeneration %s\nbase %s\n' "$FORMAT" "$(plan_digest "$stage/plan")" "$2" "$(base_identity)"
        printf 'layer %s\n' "$(sha256sum <"$stage/changes.list" | cut -d ' ' -f 1)"
        printf 'files %s\n' "$(wc -l <"$stage/changes.list")"
        printf 'size %s\n' "$(du -sbx "$stage/upper" | cut -f 1)"
        sort "$stage/state/paths.old" "$stage/state/paths" | uniq -u | sed 's/^/state /'
        plan_values state "$stage/plan" | sed 's/^/state /'
        plan_values service "$stage/plan" | sed 's/^/service /'
    } | awk '!seen[$0]++' >"$record/record"
    sync -f "$SYS"
    rm -rf -- "$SYS/layers/$1" "$SYS/migrations/$1"
    mv -T -- "$stage/upper" "$SYS/layers/$1"
    mv -T -- "$record" "$SYS/migrations/$1"
}

# plan_digest FILE: the digest of a plan, to standard output.
plan_digest() { sha256sum <"$1" | cut -d ' ' -f 1; }

# commit ID: seals the stage and makes a generation with it current.
commit() {
    local generation
    generation=$(($(generation_newest) + 1))
    seal "$1" "$generation"
    { generation_stack "$(generation_current)"; echo "$1"; } >"$SYS/staging/$1/stack"
    generation_write "$generation" "$SYS/staging/$1/stack"
    generation_set "$generation"
}

# finish ID: all that follows the commit point: state, the switch, services, the health check, the mark.
# Fails, having said why, when the migration turned out bad; the caller reverts. Never to be called where the shell
# ignores errors (in `if`, before `||`): each step has to stop it.
finish() {
    : >"$SYS/staging/$1/publishing"
    state_each "$1" state_publish
    say "switching to generation $(generation_current)"
    switch_live
    services_resume "$1"
    services_start "$1"
    verify "$1"
    sync -f "$STATE"
    printf 'at %s\ngeneration %s\n' "$(now)" "$(generation_current)" | write_file "$SYS/migrations/$1/applied"
    [ ! -f "$SYS/staging/$1/log" ] || cp -- "$SYS/staging/$1/log" "$SYS/migrations/$1/log"
    metadata_write
    stage_discard "$1"
}

# verify ID: the migration's health check, in the running root, within its limit.
verify() {
    local script limit
    script=$SYS/migrations/$1/verify.sh
    [ -f "$script" ] || return 0
    limit=$(plan_values verify-timeout "$SYS/migrations/$1/limits")
    say 'verifying'
    timeout --kill-after=5 "${limit:-60}" chroot "$LIVE" /usr/bin/env -i --default-signal=HUP,PIPE,INT \
        PATH="$PATH" HOME=/root LANG=C.UTF-8 MIGRATION_ID="$1" /bin/sh -s <"$script" && return 0
    warn "the health check of $1 failed"
    return 1
}

# revert ID GENERATION: the undo of a commit: GENERATION is current again and runs, the layer goes back to the stage.
revert() {
    generation_set "$2"
    switch_live
    services_remove "$1"
    state_take_back "$1"
    services_resume "$1"
    [ ! -d "$SYS/layers/$1" ] || mv -T -- "$SYS/layers/$1" "$SYS/staging/$1/upper"
    rm -rf -- "$SYS/migrations/$1"
    metadata_write
}
