# Falling back: a generation that cannot be assembled at boot, or whose services did not get ready in three boots in a row,
# gives way to the last one that is not known to be bad, by a new generation: history only grows.
# shellcheck shell=dash
#
#   boots                 `generation` and `failed`: how many boots in a row its services did not all get ready
#   generations/<n>       a line `instead-of N` says that n was made because N was bad

FALLBACK_AFTER=3

# fallback_stack: the number of the generation to fall back to from the current one, 0 (the base alone) when there is none,
# to standard output: the newest one before it whose layers are all there, and are neither those of the current one nor
# those of one that was fallen back from: a stack that was bad once is not tried again under another number.
fallback_stack() {
    local n bad
    { generation_stack "$(generation_current)" | tr '\n' ' '; echo; } >"$RUN/bad"
    cat "$SYS/generations"/[0-9]* 2>/dev/null | sed -n 's/^instead-of //p' | while read -r bad; do
        generation_stack "$bad" | tr '\n' ' '
        echo
    done >>"$RUN/bad"
    n=$(($(generation_current) - 1))
    while [ "$n" -gt 0 ]; do
        if [ -f "$SYS/generations/$n" ] && generation_applied "$n" &&
            ! grep -qxF -- "$(generation_stack "$n" | tr '\n' ' ')" "$RUN/bad"; then
            break
        fi
        n=$((n - 1))
    done
    echo "$n"
}

# fallback: makes it current, as a new generation. It does not run yet.
fallback() {
    local from to target
    from=$(generation_current)
    target=$(fallback_stack)
    to=$(($(generation_newest) + 1))
    warn "falling back from generation $from to the layers of generation $target, as generation $to"
    generation_stack "$target" >"$RUN/fallback"
    generation_write "$to" "$RUN/fallback" "instead-of $from"
    sync -f "$SYS"
    generation_set "$to"
    rm -f -- "$SYS/boots"
}

# boot_failed GENERATION SERVICES: counts a boot of GENERATION in which SERVICES did not get ready. True when it was one too
# many.
boot_failed() {
    local failed
    failed=1
    if [ "$(plan_values generation "$SYS/boots")" = "$1" ]; then failed=$(($(plan_values failed "$SYS/boots") + 1)); fi
    write_file "$SYS/boots" "generation $1
failed $failed"
    warn "not ready after this boot: $2 (boot $failed of $FALLBACK_AFTER before falling back)"
    [ "$failed" -ge "$FALLBACK_AFTER" ]
}
