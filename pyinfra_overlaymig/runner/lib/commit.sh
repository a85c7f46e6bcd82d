# From a finished stage to a sealed layer, a generation, and state. Every step can be done twice.
# shellcheck shell=dash
#
# Before generation_set all of this can be thrown away (transaction_undo), after it all can be completed (finish).

# capture ID: writes changes.list of the stage, in a mount namespace that ends with it.
capture() {
    setpriv --pdeathsig KILL unshare --mount --propagation private -- \
        /bin/sh "$HERE/stage/capture.sh" "$HERE" "$1" </dev/null
}

# seal ID GENERATION: the stage's upper becomes the layer, its records the migration's folder.
seal() {
    local stage record
    stage=$SYS/staging/$1
    # A sealed layer is never written again, whatever made another one of its name.
    [ ! -f "$SYS/migrations/$1/applied" ] || { warn "$1 is sealed already"; return 1; }
    record=$stage/record.new
    mkdir -p "$record"
    cp -- "$stage/plan" "$record/manifest"
    cp -- "$stage/install.sh" "$record/install_script.sh"
    cp -- "$stage/limits" "$record/limits"
    [ ! -f "$stage/verify.sh" ] || install -m 755 -- "$stage/verify.sh" "$record/verify.sh"
    cp -- "$stage/changes.list" "$record/changes.list"
    {
        printf 'format %s\ndigest %s\ngeneration %s\nbase %s\n' "$FORMAT" "$(plan_digest "$stage/plan")" "$2" "$(base_identity '')"
        # Layers are differences: this one means something over just this stack.
        printf 'below %s\n' "$(generation_stack "$(generation_current)" | sha256sum | cut -d ' ' -f 1)"
        printf 'layer %s\n' "$(sha256sum <"$stage/changes.list" | cut -d ' ' -f 1)"
        [ ! -f "$stage/audit/record" ] || cat "$stage/audit/record"
        printf 'files %s\n' "$(wc -l <"$stage/changes.list")"
        printf 'size %s\n' "$(du -sbx "$stage/upper" | cut -f 1)"
        sort "$stage/state/paths.old" "$stage/state/paths" | uniq -u | sed 's/^/state /'
        plan_values state "$stage/plan" | sed 's/^/state /'
        plan_values service "$stage/plan" | sed 's/^/service /'
    } | awk '!seen[$0]++' >"$record/record"
    drop "$SYS/layers/$1" "$SYS/migrations/$1"
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
    # All that the commit names has to be on the disk before it: a rename alone can outrun a file's contents.
    sync -f "$SYS"
    generation_set "$generation"
}

# finish ID: all that follows the commit point: state, the switch, services, the health check, the mark.
# Fails, having said why, when the migration turned out bad; the caller reverts. Never to be called where the shell
# ignores errors (in `if`, before `||`): each step has to stop it.
finish() {
    local stage
    stage=$SYS/staging/$1
    echo "$1" >"$stage/layers"
    # They are started anew anyway: not to have state change under them.
    services_pause_own "$1"
    : >"$stage/publishing"
    state_each "$stage" state_publish
    drift_dropped "$stage" drop
    say "switching to generation $(generation_current)"
    switch_live
    # Not before: services stand still meanwhile.
    audit_explaining "$stage"
    services_follow "$stage" "$stage/layers"
    verify "$1"
    confirm_await "$stage"
    audit_explained "$stage" "$SYS/migrations/$1"
    [ ! -f "$stage/log" ] || cp -- "$stage/log" "$SYS/migrations/$1/log"
    sync -f "$STATE"
    write_file "$SYS/migrations/$1/applied" "at $(now)
generation $(generation_current)"
    # Whoever is told that it succeeded must not see it finished, or even reverted, by the next boot.
    sync "$SYS/migrations/$1"
    # From here on nothing takes it back; what is left is done by the next recover, if not by this.
    finish_tidy "$1" || warn 'what is left over of it goes with the next change of the machine'
}

# finish_tidy ID: what an applied migration leaves over.
finish_tidy() {
    # While the stage is there, recover knows that there is something left to do.
    metadata_write && state_keep "$SYS/staging/$1" "$1" && stage_discard "$1"
}

# verify ID: the migration's health check, in the running root, as often as it may be tried.
verify() {
    local left
    [ -f "$SYS/migrations/$1/verify.sh" ] || return 0
    left=$(plan_values verify-retries "$SYS/migrations/$1/limits")
    left=${left:-0}
    say 'verifying'
    until verify_once "$1"; do
        [ "$left" -gt 0 ] || return 1
        say "verifying again in a second, $left left"
        left=$((left - 1))
        sleep 1
    done
}

# verify_once ID: one run of the health check, in the running root, within its limit.
verify_once() {
    local script limit status
    script=$SYS/migrations/$1/verify.sh
    limit=$(plan_values verify-timeout "$SYS/migrations/$1/limits")
    status=0
    timeout --kill-after=5 "${limit:-60}" chroot "$LIVE" \
        /usr/bin/env -i --default-signal=HUP,PIPE,INT,TERM,QUIT PATH="$PATH" HOME=/root LANG=C.UTF-8 \
        MIGRATION_ID="$1" "$script" </dev/null 9>&- || status=$?
    case $status in
    0) return 0 ;;
    124 | 137) warn "verify.sh of $1 did not end within its limit of ${limit:-60} s" ;;
    *) warn "verify.sh of $1 failed with status $status" ;;
    esac
    return 1
}

# services_pause_own ID: stops the services that the migration ID defines, and what needs them, as far as they run.
services_pause_own() {
    local service own
    own=
    for service in $(plan_values service "$SYS/migrations/$1/record"); do
        [ "$(service_restart "$service")" = never ] || own="$own $service"
    done
    # shellcheck disable=SC2046,SC2086 # one word for each service
    services_pause "$SYS/staging/$1" $(services_needing $own)
}

# revert ID GENERATION live|boot: the undo of a commit: GENERATION is current again and runs, the layer goes back to the
# stage. The record goes last: as long as it is there without `applied`, the revert is not over. At boot nothing runs yet.
revert() {
    reserve_release
    # First of all: with it, recover would take what was replaced in state for leftovers.
    rm -f -- "$SYS/migrations/$1/applied"
    generation_set "$2"
    drift_dropped "$SYS/staging/$1" bring
    mkdir -p "$SYS/staging/$1"
    echo "$1" >"$SYS/staging/$1/layers"
    if [ "$3" = live ]; then
        # Better under a service that does not stop than not at all.
        services_pause_own "$1" || :
        switch_live
    fi
    state_take_back "$SYS/staging/$1"
    if [ "$3" = live ]; then
        (services_follow "$SYS/staging/$1" "$SYS/staging/$1/layers" back) &
        wait "$!" || warn 'services of the generation before do not get ready'
    fi
    [ ! -d "$SYS/layers/$1" ] || mv -T -- "$SYS/layers/$1" "$SYS/staging/$1/upper"
    rm -rf -- "$SYS/migrations/$1"
    metadata_write
}
