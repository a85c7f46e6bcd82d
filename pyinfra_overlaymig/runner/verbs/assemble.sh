# assemble: the part of boot inside the base view: mends what the last power-off interrupted, then switches.
# Not for people: on a running machine, `recover` does this and more.
# shellcheck shell=dash

verb_assemble() {
    layout
    lock_take boot
    recover boot
    before=$(plan_values base "$SYS/generations/$(generation_current)" 2>/dev/null || :)
    if [ -n "$before" ] && [ "$before" != "$(base_identity '')" ]; then
        warn "the base has changed since generation $(generation_current) was made: from $before to $(base_identity '')"
    fi
    switch_live
    # With the base's tools: those of the layers may be what is broken.
    (services_boot "$LIVE") || warn 'some services could not be laid out'
    say "generation $(generation_current) is running"
}
