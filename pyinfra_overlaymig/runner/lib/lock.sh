# One writer at a time. The kernel frees the flock when its last holder dies; the owner file is for people.
# shellcheck shell=dash

# lock_take VERB [ID]: holds the lock on descriptor 9 until this process and its children end.
# Leaves with 3, naming the holder, when another process has it.
lock_take() {
    make_dirs "$SYS/lock"
    exec 9>>"$SYS/lock/flock"
    # Whoever took it has to live with a dead terminal from here on.
    trap '' HUP PIPE
    # A second's patience: `status` looks at the lock by taking it for an instant.
    flock -w 1 9 || lock_wait || {
        lock_owner
        die 3 "locked by ${who:-somebody} from ${from:-nowhere}, ${since:-}: ${verb:-} ${id:-} (pid ${pid:-?})" \
            'it goes on by itself; run this again when it is done, or look at: system-migrate status'
    }
    lock_record "$@"
}

# lock_wait: where the caller said that it wants to wait, shows what the holder is doing and waits for the lock.
# False where it did not.
lock_wait() {
    # The holder's names, which are not the caller's.
    local reader log who from pid boot_id since verb id
    [ -n "${lock_patience-}" ] || return 1
    lock_owner
    say "waiting for ${who:-somebody} from ${from:-nowhere}: ${verb:-} ${id:-}, since ${since:-}"
    log=$SYS/staging/$id/log
    [ "${verb:-}" != rollback ] || log=$ROLLBACK/log
    # Other verbs have no log: then there is nothing to show, and no reader.
    tail -n +1 -s 0.1 -f -- "$log" 2>/dev/null &
    reader=$!
    flock 9 || exit 111
    kill "$reader" 2>/dev/null || :
    wait "$reader" 2>/dev/null || :
}

# lock_record VERB [ID]: says who holds the lock, for the others to read.
lock_record() {
    local who from line
    who=${OVERLAYMIG_WHO:-${SUDO_USER:-root}}
    case $who in *[!A-Za-z0-9@._+:-]*) who=$(printf '%s' "$who" | tr -c 'A-Za-z0-9@._+:-' _) ;; esac
    from=${SSH_CONNECTION:-local}
    from=${from%% *}
    case $from in *[!A-Za-z0-9.:]*) from=$(printf '%s' "$from" | tr -c 'A-Za-z0-9.:' _) ;; esac
    line /proc/sys/kernel/random/boot_id
    write_file "$SYS/lock/owner" "who $who
from $from
pid $$
boot_id $line
since $(now)
verb $1
id ${2-}"
}

# lock_owner: reads the owner record into $who $from $pid $boot_id $since $verb $id.
lock_owner() {
    who='' from='' pid='' boot_id='' since='' verb='' id=''
    [ -f "$SYS/lock/owner" ] || return 0
    while read -r key value; do
        case $key in
        who) who=$value ;; from) from=$value ;; pid) pid=$value ;; boot_id) boot_id=$value ;;
        since) since=$value ;; verb) verb=$value ;; id) id=$value ;;
        esac
    done <"$SYS/lock/owner"
}

# lock_free: true when nobody holds the lock.
lock_free() {
    [ ! -e "$SYS/lock/flock" ] || flock -s -n "$SYS/lock/flock" true
}
