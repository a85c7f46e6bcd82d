# assemble: the part of boot inside the base view: mends what the last power-off interrupted, then switches.
# Not for people: on a running machine, `recover` does this and more.
# shellcheck shell=dash

verb_assemble() {
    layout
    lock_take boot
    # A process of its own, waited for: in a condition, the shell would go on after a step that failed.
    # Twice: what failed may have been the moment's, not the generation's, and can be done again.
    until { assemble & wait "$!"; } || { assemble & wait "$!"; }; do
        [ -n "$(generation_stack "$(generation_current)")" ] ||
            die 20 'not even the base alone can be assembled' 'look at the lines above'
        fallback
    done
    # With the base's tools: those of the layers may be what is broken.
    services_boot "$LIVE" || services_boot "$LIVE" || warn 'some services could not be laid out'
    say "generation $(generation_current) is running"
}

# assemble: makes the current generation the running root. Fails when it cannot be.
assemble() {
    local before
    recover boot
    before=$(plan_values base "$SYS/generations/$(generation_current)")
    if [ -n "$before" ] && [ "$before" != "$(base_identity '')" ]; then
        warn "the base has changed since generation $(generation_current) was made: from $before to $(base_identity '')"
    fi
    switch_live
}
