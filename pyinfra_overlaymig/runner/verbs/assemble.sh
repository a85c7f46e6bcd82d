# assemble: the part of boot inside the base view: mends what the last power-off interrupted, then switches.
# Not for people: on a running machine, `recover` does this and more.
# shellcheck shell=dash

verb_assemble() {
    layout
    lock_take boot
    recover boot
    switch_live
    say "generation $(generation_current) is running"
}
