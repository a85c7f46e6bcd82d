# Who changed what: the kernel's audit of one session, and nothing but it. Only what is here talks to audit.
# shellcheck shell=dash
#
# A process that writes to /proc/self/loginuid gets a new session id, which all its descendants inherit, daemons too.
# Rules name that session, so they match nothing once its last process is gone, however it ended. A machine that shares
# its kernel with others may not set rules: there a keeper outside does it (FORMAT.md, "Shared audit").
#
#   DIR/state     `on`, or why this is not watched    DIR/log      the audit log, as it can be opened from here
#   DIR/session   its session id                      DIR/offset   where the log ended before the session began
#   DIR/quiet     devices that are not watched        DIR/watched  its rules are set, or cannot be
#   DIR/uppers    where all that the session can change are overlays: the type of the file system that has their uppers
#   DIR/held      processes that hold a file of the log open: one that is rotated away meanwhile can still be read
#   DIR/lost      the kernel's count of lost records, before and after
#   DIR/holder    the process that holds the log as long as the session is open
#   DIR/records   what the log holds from then on to the session's end, of other sessions too
#   DIR/places    device and path of each root that is watched; DIR/inodes: what its entries are called in the end
#   DIR/processes, DIR/events: read from the records; DIR/../audit.gz: every record of the session, as audit wrote it
#
# Where no auditd runs, one runs for our sessions. $SYS/audit/ has its configuration and log; $RUN/audit/ its pid (`daemon`),
# the kernel's settings before it (`before`; `terse` if kinds of records are left out), and `users`, a file for each session
# that is open, called as the process that holds its log.

# audit_state: `on` where a session can be watched, else why not, to standard output.
audit_state() {
    local key value enabled pid
    if [ ! -e /proc/self/loginuid ]; then
        echo kernel-lacks
    elif [ -p "$AUDIT_SHARED/ask" ]; then
        # The keeper holds it as long as it lives.
        if [ ! -f "$AUDIT_SHARED/name" ]; then echo namespace; elif flock -n "$AUDIT_SHARED/lock" true; then echo namespace; else echo on; fi
    elif [ "$(readlink /proc/self/ns/pid /proc/self/ns/user | tr '\n' ' ')" != 'pid:[4026531836] user:[4026531837] ' ]; then
        # Those are the first ones of every kernel; audit obeys only them.
        echo namespace
    elif ! command -v auditctl >/dev/null || ! command -v auditd >/dev/null; then
        echo no-auditd
    else
        enabled='' pid=
        while read -r key value; do
            case $key in enabled) enabled=$value ;; pid) pid=$value ;; esac
        done <<END
$(auditctl -s 2>/dev/null)
END
        case $enabled:$pid in
        '':*) echo kernel-lacks ;;
        2:*) echo locked ;;
        *) case $(audit_daemon "$pid") in '' | auditd) echo on ;; *) echo busy ;; esac ;;
        esac
    fi
}

# audit_on DIR: true when what DIR is about is watched.
audit_on() {
    local line
    line "$1/state"
    [ "$line" = on ]
}

# audit_value NAME: one of the kernel's own figures, to standard output.
audit_value() { auditctl -s | sed -n "s/^$1 //p"; }

# audit_daemon PID: what the process is that holds the kernel's audit, nothing if there is none, to standard output. The
# kernel may still name one that was killed.
audit_daemon() {
    [ "$1" = 0 ] || [ -z "$(readlink "/proc/$1/exe")" ] || cat "/proc/$1/comm" 2>/dev/null || :
}

# audit_rules a|d SESSION UPPERS DEVICE…: lines for `auditctl -R` that set or delete the rules of a session: calls that change
# files and succeed, and those that make processes, which tell who is whose child. Nothing on DEVICE (major:minor). UPPERS:
# where all that is watched are overlays, and their uppers tell the outcome, the type of the uppers' file system; or 0.
audit_rules() {
    local verb session uppers arch opened changed described started device scope calls where
    verb=$1 session=$2 uppers=$3
    shift 3
    # On with the next line, whatever one says: an older auditctl does not know all of the calls.
    printf -- '-c\n'
    for arch in b64 b32; do
        opened=openat,openat2
        changed=truncate,mkdirat,renameat,renameat2,linkat,unlinkat,symlinkat,mknodat
        # Not fchmod and fchown: whoever has a file open to write to it is known by that, and package managers call them for
        # each file.
        described=fchmodat,fchownat,utimensat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr
        started=execve,execveat,clone,clone3
        case $arch:$(uname -m) in
        b64:x86_64 | b32:*)
            opened=open,$opened
            changed=creat,mkdir,rmdir,rename,link,unlink,symlink,mknod,$changed
            described=chmod,chown,lchown,utime,utimes,futimesat,$described
            started=fork,vfork,$started
            ;;
        esac
        # fchmodat2, and the 32-bit calls with wide ids and times: auditctl may not know their names.
        case $arch:$(uname -m) in
        b64:*) described=$described,452 ;;
        b32:x86_64) changed=$changed,truncate64 described=$described,chown32,lchown32,412,452 ;;
        esac
        # First of what is compared: for all other processes of the machine the rest costs nothing.
        scope="-F sessionid=$session"
        for device; do
            # A device node that is made or described has the number of its device as well: only those that are opened are
            # memory's.
            calls=$opened
            [ "$device" = 1 ] || calls=$opened,$changed,$described
            where="-F devmajor=${device%:*}"
            case $device in *:*) where="$where -F devminor=${device#*:}" ;; esac
            audit_rule_never "$calls" "$where"
        done
        if [ "$arch" = b64 ] && [ "$uppers" != 0 ]; then
            # Two calls in three of dpkg's: it makes each file under another name, without any rights, and sets its times;
            # the renaming tells who. Where nothing but a file's times changed, the upper tells it.
            audit_rule_never openat '-F a2&=0xc0 -F a3=0'
            audit_rule_never utimensat '-F a3=0'
        fi
        audit_rule content "$opened" ' -F perm=w'
        # O_CREAT makes a file that may then only be read.
        audit_rule content openat ' -F a2&0x40'
        case $opened in open,*) audit_rule content open ' -F a1&0x40' ;; esac
        audit_rule content "$changed"
        audit_rule metadata "$described"
        audit_rule process "$started"
    done
}

# audit_rule_never CALLS CONDITION: one of them that leaves out, for $verb, $arch, $scope and $uppers.
audit_rule_never() {
    printf -- '-%s never,exit -F arch=%s -S %s %s %s -k overlaymig-uppers-%s\n' "$verb" "$arch" "$1" "$scope" "$2" "$uppers"
}

# audit_rule KIND CALLS [CONDITION]: one of them that records, for $verb, $arch and $scope.
audit_rule() {
    printf -- '-%s always,exit -F arch=%s -S %s %s -F success=1%s -k overlaymig-%s\n' "$verb" "$arch" "$2" "$scope" "${3-}" "$1"
}

# audit_quiet DIR ROOT: notes the devices whose files are nobody's system: those of memory, as /dev/null, and what is mounted
# at /dev, /proc and /run of ROOT (its path, empty for the machine's own).
audit_quiet() {
    awk -v root="$2" '
        BEGIN { print 1 }
        index($5, root) == 1 && substr($5, length(root) + 1) ~ "^/(dev|proc|run)$" && !seen[$3]++ { print $3 }
    ' /proc/self/mountinfo >"$1/quiet.new"
    mv -f -- "$1/quiet.new" "$1/quiet"
}

# audit_narrow: leaves out, or no more, the PATHs that an overlay gives once more for its upper, a quarter of all records.
# That holds for a whole type of file system and for everybody: so only while all sessions are of overlays, and nobody else
# has rules. Fails where they are left out and must not be.
audit_narrow() {
    local tries wanted there
    # Looked at again after each change: another's may have come in between.
    for tries in 1 2 3 4 5; do
        read -r wanted there <<END
$(auditctl -l | audit_uppers)
END
        [ "$wanted" != "$there" ] || return 0
        if [ "$there" != 0 ]; then
            auditctl -d never,filesystem -F "fstype=$there" -F "key=overlaymig-uppers-$there" >/dev/null 2>&1 || :
        elif ! auditctl -a never,filesystem -F "fstype=$wanted" -F "key=overlaymig-uppers-$wanted" >/dev/null 2>&1; then
            # An older kernel: it goes without.
            return 0
        fi
    done
    [ "$there" = 0 ]
}

# audit_uppers: a list of rules, which all who set some share, in; the type of file system that may be left out, and the
# one that is, to standard output; 0 for none.
audit_uppers() {
    awk '
        /^No rules/ || /^-a [a-z]+,exclude / { next }
        !/-F key=overlaymig/ { other = 1; next }
        { kind = match($0, /key=overlaymig-uppers-[0-9]+$/) ? substr($0, RSTART + 22) : "" }
        # As text: a large number is listed as a negative one, and printed with an exponent.
        /^-a never,filesystem / { there = kind; next }
        match($0, /sessionid=[0-9]+/) { session = substr($0, RSTART, RLENGTH); if (!uppers[session]) uppers[session] = kind }
        END {
            for (session in uppers) {
                if (wanted == "") wanted = uppers[session]
                if (uppers[session] == "" || uppers[session] != wanted) other = 1
            }
            print other || wanted == "" ? 0 : wanted, there == "" ? 0 : there
        }'
}

# audit_ask begin|end SESSION DIR: has the rules of a session set or deleted, and notes what the kernel lost so far.
audit_ask() {
    local what session directory verb tries line uppers device
    what=$1 session=$2 directory=$3
    line "$directory/uppers"
    uppers=${line:-0}
    set --
    while read -r device; do set -- "$@" "$device"; done <"$directory/quiet"
    if [ -p "$AUDIT_SHARED/ask" ]; then
        printf '%s %s %s %s\n' "$what" "$session" "$uppers" "$*" 1<>"$AUDIT_SHARED/ask"
        tries=0
        until [ -f "$AUDIT_SHARED/answers/$session.$what" ]; do
            tries=$((tries + 1))
            [ "$tries" -lt 500 ] || return 1
            sleep 0.01
        done
        line "$AUDIT_SHARED/answers/$session.$what"
        echo "$line" >>"$directory/lost"
    else
        case $what in begin) verb=a ;; *) verb=d ;; esac
        audit_value lost >>"$directory/lost"
        audit_rules "$verb" "$session" "$uppers" "$@" >"$directory/rules"
        chmod 600 "$directory/rules"
        auditctl -R "$directory/rules" >/dev/null 2>&1
        audit_narrow || return
        # Each of the kinds that all depends on, or one that an older auditctl does not know has been left out.
        [ "$verb" = d ] || for verb in content metadata process; do
            # Not -q, which would leave auditctl with a broken pipe to complain of.
            auditctl -l | grep -- "-F sessionid=$session .*-F key=overlaymig-$verb\$" >/dev/null || return 1
        done
    fi
}

# audit_open DIR: before a session: says in DIR/state whether it can be watched; if so, from here on nothing of the log
# is lost. Starts auditd where none runs.
audit_open() {
    local line
    mkdir -p "$1"
    audit_state >"$1/state"
    audit_on "$1" || return 0
    if [ -p "$AUDIT_SHARED/ask" ]; then
        line "$AUDIT_SHARED/name"
        printf '%s\n' "$AUDIT_SHARED/log/$line" >"$1/log"
    else
        # Nobody else starts or ends one until this session is known as open.
        audit_lock
        [ -n "$(audit_daemon "$(audit_value pid)")" ] || audit_start
        audit_daemon_log "$(audit_value pid)" >"$1/log"
    fi
    audit_hold "$1"
    exec 8>&-
}

# audit_hold DIR: begins to hold the log, or says in DIR/state why not.
audit_hold() {
    local line holder
    line "$1/log"
    if [ -z "$line" ] || ! stat -L -c %s -- "$line" >"$1/offset" 2>/dev/null; then
        echo no-log >"$1/state"
        return 0
    fi
    : >"$1/held"
    setpriv --pdeathsig KILL /bin/sh "$HERE/stage/hold.sh" "$1" "$line" </dev/null 8>&- 9>&- &
    holder=$!
    echo "$holder" >"$1/holder"
    [ ! -d "$RUN/audit/users" ] || true >"$RUN/audit/users/$holder"
    until [ -s "$1/held" ]; do
        kill -0 "$holder" 2>/dev/null || { echo no-log >"$1/state"; return 0; }
        sleep 0.01
    done
}

# audit_lock: waits until no other runner starts or ends auditd, or opens a session; until descriptor 8 is closed.
audit_lock() {
    make_dirs "$RUN/audit/users"
    exec 8>"$RUN/audit/lock"
    flock 8
}

# audit_users: true while a session of ours is open.
audit_users() {
    local user
    for user in "$RUN/audit/users"/*; do
        # The number may be another process's by now.
        if grep -qs '/stage/hold\.sh' "/proc/${user##*/}/cmdline"; then return; fi
    done
    return 1
}

# audit_start: runs auditd for our sessions, with a log of its own that is never rotated. It outlives whoever starts it, as
# others may have come to need it; audit_end ends it.
audit_start() {
    local tries
    mkdir -p "$SYS/audit/plugins"
    # One that is there is of an auditd that died while it was needed.
    [ -f "$RUN/audit/before" ] || write_file "$RUN/audit/before" "$(audit_value enabled) $(audit_value backlog_limit)"
    {
        printf 'log_file = %s\nplugin_dir = %s\n' "$SYS/audit/auditd.log" "$SYS/audit/plugins"
        printf '%s\n' 'local_events = yes' 'write_logs = yes' 'log_group = root' 'log_format = RAW' 'flush = NONE' \
            'max_log_file = 1000' 'max_log_file_action = IGNORE' 'priority_boost = 0' 'name_format = NONE' \
            'space_left = 2' 'space_left_action = IGNORE' 'admin_space_left = 1' 'admin_space_left_action = IGNORE' \
            'disk_full_action = SUSPEND' 'disk_error_action = SUSPEND' 'use_libwrap = no' 'q_depth = 2000' 'overflow_action = IGNORE'
    } >"$SYS/audit/auditd.conf"
    chmod 600 "$SYS/audit/auditd.conf"
    # Known before it runs: whoever starts it may be killed.
    sh -c 'echo "$$" >"$1" && exec setsid auditd -n -c "$2"' sh "$RUN/audit/daemon" "$SYS/audit" </dev/null >/dev/null 2>&1 8>&- 9>&- &
    tries=0
    until [ "$(audit_value pid)" = "$!" ] || [ ! -e "/proc/$!/exe" ] || [ "$tries" -ge 300 ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
    # 64, the kernel's own choice, is for a machine that nobody watches.
    auditctl -b 16384 >/dev/null 2>&1
    # Only where no rule of anybody else is there: it holds for all rules.
    if [ "$(auditctl -l)" = 'No rules' ]; then
        : >"$RUN/audit/terse"
        audit_terse a
    fi
}

# audit_terse a|d: leaves out, or no more, the kinds of records, half of all, that tell nothing which others do not: a
# command line once more, the capabilities of a program that has some, the directory that a path is relative to, whose
# inode is in the PATHs, and that an event is complete, which the number of its PATHs tells.
audit_terse() {
    local kind
    for kind in PROCTITLE BPRM_FCAPS CWD EOE; do
        auditctl "-$1" always,exclude -F "msgtype=$kind" >/dev/null 2>&1 || :
    done
}

# audit_end: ends the auditd that audit_start ran, unless a session of ours is open, and gives the kernel back what it had.
# Also after it was killed, or the machine; can be done again.
audit_end() {
    local pid tries line enabled backlog
    [ -d "$SYS/audit" ] || return 0
    audit_lock
    if ! audit_users; then
        # Nothing is known after a reboot, and nothing is to be done.
        if [ -f "$RUN/audit/daemon" ]; then
            line "$RUN/audit/daemon"
            pid=${line:-0}
            tries=0
            while grep -qsF "$SYS/audit" "/proc/$pid/cmdline"; do
                [ "$tries" -gt 0 ] || kill -TERM "$pid" 2>/dev/null || :
                tries=$((tries + 1))
                # The next verb tries again.
                [ "$tries" -lt 500 ] || { exec 8>&-; return 0; }
                sleep 0.01
            done
        fi
        [ ! -f "$RUN/audit/terse" ] || audit_terse d
        # One that others have started since has its own.
        if [ -f "$RUN/audit/before" ] && [ -z "$(audit_daemon "$(audit_value pid)")" ]; then
            read -r enabled backlog <"$RUN/audit/before"
            auditctl -e "$enabled" -b "$backlog" >/dev/null 2>&1 || :
        fi
        rm -f -- "$RUN/audit/daemon" "$RUN/audit/terse" "$RUN/audit/before" "$RUN/audit/users"/*
        rm -rf -- "$SYS/audit"
    fi
    exec 8>&-
}

# audit_daemon_log PID: the file that a running auditd writes, as it can be opened from here, to standard output.
audit_daemon_log() {
    local file
    for file in "/proc/$1/fd"/*; do
        [ -f "$file" ] || continue
        file=$(readlink -- "$file")
        case $file in *.log | */log) printf '%s\n' "/proc/$1/root$file"; return ;; esac
    done
}

# audit_enter DIR: puts this process, and all that it will start, into a fresh session, which audit_watch has watched.
audit_enter() {
    local loginuid session
    audit_on "$1" || return 0
    # Without a newline in them, these reads fail. The owner stays: what else audit records of the operator keeps the operator's name.
    read -r loginuid </proc/self/loginuid || :
    [ "$loginuid" != 4294967295 ] || loginuid=0
    if ! printf '%s' "$loginuid" 2>/dev/null >/proc/self/loginuid; then
        echo fixed-session >"$1/state"
        return 0
    fi
    read -r session </proc/self/sessionid || :
    echo "$session" >"$1/session"
}

# audit_watch DIR: sets the rules of the session in DIR, if there is one and DIR/quiet says what they are to leave out.
audit_watch() {
    local line
    if [ -f "$1/session" ] && [ -f "$1/quiet" ]; then
        line "$1/session"
        audit_ask begin "$line" "$1" || echo no-rules >"$1/state"
    fi
    : >"$1/watched"
}

# audit_leave DIR: after a session: in the background, has its rules deleted and takes its records out of the log, which
# goes on; its process is $leaving. audit_await waits for that.
audit_leave() {
    local session line
    leaving=
    [ -f "$1/session" ] || { audit_stop "$1"; return 0; }
    line "$1/session"
    session=$line
    {
        audit_ended "$1"
        # The kernel takes its time for each rule.
        { audit_ask end "$session" "$1" || echo unknown >>"$1/lost"; } &
        # Part of them would pass for all, and the room may be needed.
        audit_log_files "$1" >"$1/records" || { rm -f -- "$1/records"; echo unreadable >"$1/state"; }
        wait "$!" || :
    } 9>&- &
    leaving=$!
}

# audit_ended DIR: waits until the last record of the session is written, or says in DIR/state that some are not there.
audit_ended() {
    local mark log tries line holder
    line "$1/holder"
    holder=$line
    # One more session, of a process that does nothing: the record of its begin comes after all others. It may be dropped
    # as others are where there is no room, so another follows each second.
    tries=0
    mark=none
    # In what is held, and not under the name of the log: that may be a new file already, which is not held yet.
    until log=/proc/$(tail -n 1 "$1/held")/fd/0 && tail -c 65536 -- "$log" 2>/dev/null | grep -q "type=LOGIN .* ses=$mark "; do
        if [ "$((tries % 50))" -eq 0 ]; then
            if [ "$mark" != none ] && audit_log_files "$1" | grep -q "type=LOGIN .* ses=$mark "; then break; fi
            mark=$(printf 0 2>/dev/null >/proc/self/loginuid; read -r mark </proc/self/sessionid || :; echo "$mark")
        fi
        tries=$((tries + 1))
        # Nothing holds the log any more when its runner is gone.
        if [ "$tries" -ge 1500 ] || ! kill -0 "$holder" 2>/dev/null; then
            echo incomplete >"$1/state"
            break
        fi
        sleep 0.02
    done
    [ ! -f "$1/gap" ] || echo incomplete >"$1/state"
}

# audit_log_files DIR: what the log holds since audit_open, also of files that were rotated away since, to standard output.
audit_log_files() {
    local pid from
    from=$(($(cat "$1/offset") + 1))
    while read -r pid; do
        tail -c "+$from" "/proc/$pid/fd/0" || return
        from=1
    done <"$1/held"
}

# audit_await DIR: waits for what audit_leave began, and gives up what the session needed.
audit_await() {
    if [ -n "${leaving-}" ]; then wait "$leaving" || echo unreadable >"$1/state" || :; fi
    leaving=
    audit_stop "$1"
}

# audit_stop DIR: gives up all that a session needed. Can be done twice, and after an audit_open that nothing followed.
audit_stop() {
    local pid line
    if [ -f "$1/lost" ] && [ "$(wc -l <"$1/lost")" -lt 2 ]; then audit_ask end "$(cat "$1/session")" "$1" || :; fi
    if [ -f "$1/holder" ]; then
        # Empty where the disk was full.
        line "$1/holder"
        kill -KILL "$line" 2>/dev/null || :
        rm -f -- "$RUN/audit/users/${line:-none}"
        while read -r pid; do kill -KILL "$pid" 2>/dev/null || :; done <"$1/held"
        rm -f -- "$1/holder" "$1/held"
    fi
    audit_end
}

# audit_sweep: deletes rules of sessions that are over because their runner was killed, and gives the kernel back what it had
# before a daemon that went with it. Rules of others are not ours: they have another key. A capture may run meanwhile.
audit_sweep() {
    local dir
    for dir in "$SYS/captures"/.*; do
        case ${dir##*.} in *[!0-9]* | '') continue ;; esac
        kill -0 "${dir##*.}" 2>/dev/null || rm -rf -- "$dir"
    done
    audit_end
    [ ! -p "$AUDIT_SHARED/ask" ] && command -v auditctl >/dev/null || return 0
    grep -soE '[0-9]+' /proc/[0-9]*/sessionid | sed 's/.*:/-F sessionid=/; s/$/ /' | sort -u >"$RUN/sessions"
    # Also what audit_narrow has set, until no session is left that wants it.
    auditctl -l 2>/dev/null | grep -E -- '-F key=overlaymig(-[a-z0-9-]+)?$' | grep -vF -f "$RUN/sessions" >"$RUN/rules" || return 0
    # As they are listed they can be deleted.
    { printf -- '-c\n'; sed 's/^-a /-d /' "$RUN/rules"; } >"$RUN/rules.sweep"
    chmod 600 "$RUN/rules.sweep"
    auditctl -R "$RUN/rules.sweep" >/dev/null 2>&1 || :
    audit_narrow || :
    rm -f -- "$RUN/rules" "$RUN/rules.sweep"
}

# audit_required LIMITS: true when a migration must not run unwatched.
audit_required() { [ "$(plan_values audit "$1")" = required ]; }

# audit_preflight LIMITS ID: leaves with 3 when it requires audit and there is none.
audit_preflight() {
    local state
    audit_required "$1" || return 0
    state=$(audit_state)
    [ "$state" = on ] || die 3 "$2 requires audit, which is not to be had here: $state" \
        'install auditd in the base, or take "audit: required" out of the manifest'
}

# audit_conclude STAGE: waits until all records of a stage's session are taken; fails, having said why, when its migration
# requires audit and was not watched to its end. What they say is read after the commit, which needs none of it.
audit_conclude() {
    audit_await "$1/audit"
    audit_summary "$1/audit" >"$1/audit/record"
    audit_enough "$1"
}

# audit_enough STAGE: fails, having said why, when its migration requires audit and there is not enough of it.
audit_enough() {
    if audit_required "$1/limits" && ! audit_on "$1/audit"; then
        warn "this migration requires audit, which is: $(cat "$1/audit/state")"
        return 1
    fi
}

# audit_explaining STAGE: begins to explain a stage that is sealed, in the background and behind all else; its process is
# $explainer. It reads only what is in the stage, so that whoever finishes the migration after a crash can do it.
audit_explaining() {
    local directory
    directory=$1/audit
    explainer=
    [ -f "$directory/records" ] || return 0
    {
        /bin/sh -c 'renice -n 5 -p "$PPID" >/dev/null 2>&1 || :'
        # One of a runner that was killed may not have noticed.
        flock 7
        audit_read "$directory" && audit_resolve "$directory" &&
            audit_explain "$directory" "$1/changes.list" "$1/lists/times" "$1/lists/unchanged" "$1/lists/unchanged.dirs"
    } 7>"$directory/lock" 8>&- 9>&- </dev/null &
    explainer=$!
}

# audit_settle: waits for what audit_explaining began, whatever comes of it; before its stage is taken away.
audit_settle() {
    if [ -n "${explainer-}" ]; then wait "$explainer" || :; fi
    explainer=
}

# audit_explained STAGE RECORD: adds who did it to the record of a migration, before it is applied. Fails as audit_enough.
audit_explained() {
    [ -n "$explainer" ] || return 0
    if ! wait "$explainer"; then
        echo unreadable >"$1/audit/state"
        drop "$1/audit/who" "$1/audit/unexplained"
    fi
    explainer=
    audit_summary "$1/audit" >"$1/audit/record"
    if grep -qxE 'lost [1-9].*|unexplained [1-9].*|lost unknown' "$1/audit/record"; then
        warn "audit: $(tr '\n' ' ' <"$1/audit/record")"
    fi
    audit_enough "$1" || return
    audit_record "$1/audit" "$2"
    write_file "$2/record" "$(grep -vE '^(audit|events|lost|unexplained) ' "$2/record"; cat "$1/audit/record")"
}

# audit_trace DIR: all that there is of a session that came to nothing: DIR/../audit.gz, as evidence.
audit_trace() {
    audit_await "$1"
    # A redirection that fails would end the shell.
    if [ -f "$1/records" ]; then (audit_read "$1") || :; fi
}

# audit_summary DIR: key value lines about a capture: audit, and where it was on: events lost unexplained; to standard
# output.
audit_summary() {
    local before after line
    line "$1/state"
    printf 'audit %s\n' "${line:-unknown}"
    [ -f "$1/unexplained" ] || return 0
    { read -r before || :; read -r after || :; } <"$1/lost"
    line "$1/processes.count"
    printf 'events %s\n' "$line"
    case $before$after in
    '' | *[!0-9]*) printf 'lost unknown\n' ;;
    *) printf 'lost %s\n' "$((after - before))" ;;
    esac
    line "$1/unexplained"
    printf 'unexplained %s\n' "$line"
}

# audit_record DIR RECORD: adds who.list and audit.gz to the record of a migration.
audit_record() {
    [ ! -f "$1/who" ] || cp -- "$1/who" "$2/who.list"
    if [ -f "${1%/*}/audit.gz" ] && [ ! "${1%/*}" -ef "$2" ]; then cp -- "${1%/*}/audit.gz" "$2/audit.gz"; fi
}

# capture_name TEXT: true for what may name a record: an id of a migration has this form too.
capture_name() {
    case $1 in
    '' | [!a-z0-9]* | *[!a-z0-9_-]*) return 1 ;;
    *) [ "${#1}" -le 77 ] ;;
    esac
}
