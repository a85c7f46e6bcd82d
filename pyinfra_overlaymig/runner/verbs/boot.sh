# boot [--] CMD…: the machine's entrypoint: recovers, switches to the current generation, becomes CMD.
# Whatever is wrong with the layers, CMD runs: over the base alone in the worst case, so that ssh answers.
# shellcheck shell=dash

verb_boot() {
    local newer
    [ "${1-}" != -- ] || shift
    [ "$#" -gt 0 ] || die 100 'boot takes the command to become' "system-migrate boot s6-svscan $SCANDIR"
    need_root
    # The runner that prepared the machine knows its format: the image's own is only for the first boot.
    newer=$SYS/runner/system-migrate
    if [ -z "${SYSTEM_MIGRATE_BOOT-}" ] && [ -f "$newer" ] && sh "$newer" version >/dev/null 2>&1; then
        SYSTEM_MIGRATE_BOOT=1 exec sh "$newer" boot -- "$@"
    fi
    unset SYSTEM_MIGRATE_BOOT
    [ ! -f "$RUN/running" ] || die 3 'this machine has been booted' 'boot is the entrypoint of a machine, once for each start'
    if ! sh "$SELF" assemble; then
        warn 'the current generation could not be assembled: the base runs alone'
        services_boot '' || services_boot '' || warn 'some services could not be laid out'
    fi
    cd /
    sh "$SELF" settle </dev/null &
    exec "$@"
}
