# recover: finishes or undoes what was interrupted, and says what it did. Doing it twice changes nothing more.
# shellcheck shell=dash

verb_recover() {
    [ "$#" -eq 0 ] || die 100 'recover takes no arguments' 'system-migrate recover'
    layout
    lock_take recover
    recover live
    say "generation $(generation_current) is current, $(generation_running) is running"
}
