# check: names each capability that this machine lacks.
# shellcheck shell=dash

verb_check() {
    local missing
    [ "$#" -eq 0 ] || die 100 'check takes no arguments' 'system-migrate check'
    need_root
    missing=$(capabilities_missing)
    [ -z "$missing" ] || die 3 "this machine lacks: $missing" 'install these packages in the base image'
    mountpoint -q "$DATA" || warn "$DATA is not a mount point: make sure that it outlives a restart"
    say 'this machine has all that migrations need'
}
