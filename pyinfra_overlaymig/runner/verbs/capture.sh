# capture NAME [--] CMD…: runs CMD in the running root, watched: what it changes stays, in the upper, and its record says who
# changed what (`diff NAME`). No stage, no layer, no lock: a long command must not keep migrations from being applied.
# shellcheck shell=dash

verb_capture() {
    local name state
    [ "$#" -ge 2 ] || die 100 'capture takes a name and a command' 'system-migrate capture make_install -- make -C /usr/src/tool install'
    name=$1
    shift
    [ "$1" != -- ] || shift
    if ! capture_name "$name" || valid_id "$name"; then
        die 4 "'$name' cannot name a capture" 'lower case letters, digits, _ and -, and not the form of a migration id'
    fi
    state=$(audit_state)
    [ "$state" = on ] || die 3 "what a command changes cannot be seen here: audit is $state" 'install auditd in the base'
    layout
    mkdir -p "$SYS/captures"
    directory=$SYS/captures/.$name.$$
    trap '' HUP PIPE
    trap 'audit_await "$directory/audit"; rm -rf -- "$directory"' EXIT
    trap 'exit 143' TERM INT
    mkdir -p "$directory/audit"
    capture_run "$name" "$@"
}

# capture_run NAME CMD…: in $directory, which becomes the record. Leaves with 1 when CMD fails.
capture_run() {
    local name status
    name=$1
    shift
    TMPDIR=$directory/audit
    audit_open "$directory/audit" || :
    capture_places >"$directory/audit/places"
    status=0
    capture_command "$@" &
    wait "$!" || status=$?
    audit_leave "$directory/audit" || :
    audit_await "$directory/audit"
    if [ -f "$directory/audit/records" ] && ! (audit_read "$directory/audit"); then
        echo unreadable >"$directory/audit/state"
    elif [ -f "$directory/audit/records" ]; then
        if [ -d "$SYS/upper/$(upper_live)/upper" ]; then
            audit_inodes "$directory/audit" "$SYS/upper/$(upper_live)/upper" "$LIVE/." ''
        fi
        audit_handles "$directory/audit" "$LIVE"
        audit_resolve "$directory/audit"
        audit_changes "$directory/audit" "$LIVE/." >"$directory/changes.list"
        audit_packages "$directory/audit" "$LIVE"
        audit_explain "$directory/audit" "$directory/changes.list" /dev/null /dev/null
    fi
    touch "$directory/changes.list"
    {
        printf 'format %s\nat %s\nstatus %s\n' "$FORMAT" "$(now)" "$status"
        audit_summary "$directory/audit"
        printf 'files %s\n' "$(wc -l <"$directory/changes.list")"
    } >"$directory/record"
    audit_record "$directory/audit" "$directory"
    rm -rf -- "$directory/audit" "$SYS/captures/$name"
    mv -T -- "$directory" "$SYS/captures/$name"
    say "captured $(wc -l <"$SYS/captures/$name/changes.list") changes: system-migrate diff $name"
    [ "$status" -eq 0 ] || die 1 "the command failed with status $status" 'what it changed until then is recorded, and stays'
}

# capture_command CMD…: becomes it, so only ever to be called with `&`.
capture_command() {
    audit_enter "$directory/audit" || :
    audit_quiet "$directory/audit" ''
    audit_watch "$directory/audit"
    exec chroot "$LIVE" /usr/bin/env --default-signal=HUP,PIPE,INT,TERM,QUIT "$@"
}

# capture_places: device and place of each mount of the running root that can hold files of the system, to standard output.
capture_places() {
    local device place
    awk '$5 !~ "^/(dev|proc|sys|run)(/|$)" { print $3, $5 }' /proc/1/mountinfo | while read -r device place; do
        printf '%02x:%02x %s\n' "${device%:*}" "${device#*:}" "$place"
    done
}
