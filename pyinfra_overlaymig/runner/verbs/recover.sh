# recover: finishes or undoes what was interrupted, and says what it did. Doing it twice changes nothing more.
# shellcheck shell=dash

verb_recover() {
    layout
    lock_take recover
    trap '' HUP PIPE
    recover live
    say "generation $(generation_current) is current, $(generation_running) is running"
}
