# Bundles: received, checked, and refused before anything is touched.
# shellcheck shell=dash

# bundle_receive DIR: unpacks the tar.gz on standard input into DIR and checks that it came whole.
bundle_receive() {
    local file
    drop "$1"
    mkdir -p "$1"
    tar -C "$1" --no-same-owner -xpzf - 2>"$1/errors" || {
        ! grep -q 'No space left' "$1/errors" ||
            die 3 "there is no room in $DATA for the bundle" 'remove what is not needed, or make the volume larger'
        die 4 "this is no bundle, or only a part of one: $(grep -m 1 . "$1/errors")" 'pack it again, or upload it again'
    }
    rm -f -- "$1/errors"
    for file in plan limits install.sh sums; do
        [ -f "$1/$file" ] || die 4 "the bundle lacks $file" 'pack it with this version of overlaymig'
    done
    (cd "$1" && sha256sum --check --quiet --strict sums >/dev/null 2>&1) ||
        die 4 'the bundle is damaged: its checksums do not match' 'upload it again'
    [ "$(plan_values format "$1/plan")" = "$FORMAT" ] ||
        die 4 "the bundle has format $(plan_values format "$1/plan"), this runner reads $FORMAT" 'run machine_prepared, which brings a matching runner'
    valid_id "$(plan_values id "$1/plan")" ||
        die 4 'the bundle has no valid id' 'an id is YYYYMMDD-NNN_label'
}

# bundle_apply DIR [SECONDS]: takes the lock, refuses what must be refused, and runs the transaction, which has to be
# confirmed within SECONDS where they are given. Leaves with its exit code.
bundle_apply() {
    local id
    id=$(plan_values id "$1/plan")
    lock_take apply "$id"
    recover live
    lock_record apply "$id"
    if bundle_applied "$1/plan" "$id"; then
        say "$id is applied already"
        exit 0
    fi
    if [ -f "$SYS/migrations/$id/applied" ]; then bundle_forward "$id" "${2-}"; fi
    preflight "$1" "$id"
    drop "$SYS/staging/$id"
    mv -T -- "$1" "$SYS/staging/$id"
    confirm_ask "$SYS/staging/$id" "${2-}"
    worker "$SYS/staging/$id/log" transaction "$id"
}

# bundle_forward ID SECONDS: a migration that was applied and rolled back: its layer is put on the stack again, no script
# runs. Leaves with the outcome.
bundle_forward() {
    generation_stack "$(generation_current)" >"$RUN/forward"
    if [ "$(plan_values below "$SYS/migrations/$1/record")" != "$(sha256sum <"$RUN/forward" | cut -d ' ' -f 1)" ]; then
        die 3 "the layer of $1 was made over another stack than the current one" \
            'system-migrate rollback to a generation that has it, or put the change into a new migration'
    fi
    say "$1 was applied before: its layer is used again"
    echo "$1" >>"$RUN/forward"
    rollback_begin
    confirm_ask "$ROLLBACK" "$2"
    worker "$ROLLBACK/log" rollback "$RUN/forward"
}

# bundle_applied PLAN ID: true when just this is applied and part of the current generation; leaves with 3 when another
# version of it was applied, ever.
bundle_applied() {
    [ -f "$SYS/migrations/$2/applied" ] || return 1
    if [ "$(plan_values digest "$SYS/migrations/$2/record")" = "$(plan_digest "$1")" ]; then
        stack_has "$2"
        return
    fi
    diff -u --label "$2 (applied)" --label "$2 (new)" "$SYS/migrations/$2/install_script.sh" "${1%/*}/install.sh" >&2 || :
    diff -u --label "$2 (applied plan)" --label "$2 (new plan)" "$SYS/migrations/$2/manifest" "$1" >&2 || :
    die 3 "$2 was edited after it was applied" 'undo the edit, and put the change into a new migration'
}

# preflight DIR ID: leaves with 3, saying why, when the migration cannot be applied now.
preflight() {
    local missing needed other last
    missing=$(capabilities_missing)
    [ -z "$missing" ] || die 3 "this machine lacks: $missing" 'run machine_prepared, or install these packages in the base'
    for needed in $(plan_values depends "$1/plan"); do
        stack_has "$needed" || die 3 "$2 depends on $needed, which is not applied here" "apply $needed first"
    done
    for other in $(plan_values conflicts "$1/plan"); do
        ! stack_has "$other" || die 3 "$2 conflicts with $other, which is applied here" "go back to before $other, or leave $2 out"
    done
    if stack_values conflicts manifest | grep -qxF -- "$2"; then
        other=$(cd "$SYS/migrations" && grep -lxF -- "conflicts $2" */manifest | while read -r other; do
            ! stack_has "${other%/*}" || echo "${other%/*}"
        done | sed -n 1p)
        die 3 "$other, which is applied here, conflicts with $2" "go back to before $other, or leave $2 out"
    fi
    for other in $(plan_values stop "$1/plan"); do
        [ -e "$SCANDIR/$other" ] || [ -d "$LIVE/$SERVICES/$other" ] || plan_values service "$1/plan" | grep -qxF -- "$other" ||
            die 3 "$2 stops the service $other, which is not here" 'correct its name, or take it out of stop:'
    done
    ! stack_has "$2" || die 20 "$2 is in the current generation and was never finished" 'run: system-migrate recover'
    last=$(stack_newest)
    if plan_says local "$1/plan"; then last=; fi
    if [ -n "$last" ] && [ "$(printf '%s\n%s\n' "$last" "$2" | sort | tail -n 1)" != "$2" ]; then
        die 3 "$2 is out of order: $last is applied already" "migrations run in the order of their ids: if no machine has it yet, give it an id after $last"
    fi
    if [ -n "$(plan_values service "$1/plan")" ] && ! services_supported; then
        die 3 "$2 has services, and s6-svscan does not run on $SCANDIR" "boot the machine through: system-migrate boot s6-svscan $SCANDIR"
    fi
    audit_preflight "$1/limits" "$2"
    preflight_space "$1" "$2"
    reserve_fill
}

# stack_newest: the greatest id of the current generation that did not come from `install`, to standard output: what an
# operator installs on one machine is not in the order of the others.
stack_newest() {
    local layer
    generation_stack "$(generation_current)" | sort -r | while read -r layer; do
        if ! plan_says local "$SYS/migrations/$layer/manifest"; then
            echo "$layer"
            break
        fi
    done
}

# preflight_space DIR ID: room for the bundle's files twice, and some for what a script of any use makes.
preflight_space() {
    local need free
    need=$(($(du -sk "$1" | cut -f 1) * 2 + 65536 + $(snapshot_space "$1")))
    # shellcheck disable=SC2046 # three numbers
    set -- "$2" $(stat -f -c '%a %S %d %c' "$SYS")
    free=$(($2 * $3 / 1024))
    [ "$free" -ge "$need" ] || die 3 "$1 needs $need KiB free in $DATA, which has $free" 'remove what is not needed, or make the volume larger'
    # A file system that counts no inodes (btrfs) says it has none at all.
    if [ "$5" -gt 0 ] && [ "$4" -lt 2048 ]; then
        die 3 "$1 needs 2048 inodes free in $DATA, which has $4" 'remove what is not needed, or make the volume larger'
    fi
}
