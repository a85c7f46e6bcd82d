# Names every other file uses: where things are, how to speak, how to leave.
# shellcheck shell=dash disable=SC2034 # the names are used by the files that are sourced after this one

VERSION=0.1.0
FORMAT=1
DATA=/data
SYS=$DATA/system
STATE=$DATA/state
RUN=/run/system-migrate
BASE=$RUN/base
LIVE=/proc/1/root
OLD=/dev/.system-migrate.old
# Overlay features that would make an upper directory unreadable without the mount; a kernel may have them on.
PLAIN=redirect_dir=off,metacopy=off,index=off
SCANDIR=/run/service
AUDIT_SHARED=$LIVE/run/overlaymig-audit
ROLLBACK=$SYS/rollback
REPLACED=$SYS/replaced
SNAPSHOTS=$SYS/snapshots
RESERVE=$SYS/reserve
SERVICEDIRS=/run/services
SERVICES=etc/s6/services

# say TEXT: one line of progress to standard output. Nobody listening any more is no reason to stop.
say() { printf '==> %s\n' "$1" 2>/dev/null || :; }

# warn TEXT: one line to standard error.
warn() { printf 'system-migrate: %s\n' "$1" >&2 2>/dev/null || :; }

# die CODE WHAT REMEDY: says both and leaves with CODE.
die() {
    printf 'system-migrate: %s\n  hint: %s\n' "$2" "$3" >&2
    exit "$1"
}

# leave VERB STATUS: the exit trap of every verb. Drops $rubbish; the status of a command that failed where nobody expected it
# becomes one that operators know.
leave() {
    trap - EXIT
    [ -z "${rubbish-}" ] || rm -rf -- "$rubbish" || :
    case $2 in
    0 | 3 | 4 | 9 | 20 | 100 | 111) exit "$2" ;;
    esac
    case $1 in
    recover | drift | assemble | settle) die 20 "$1 failed" 'the reason is above; run: system-migrate recover' ;;
    *) die 111 "$1 failed before it changed anything" 'the reason is above' ;;
    esac
}

# need_root: leaves with 111 unless this process may mount.
need_root() {
    [ "$(id -u)" -eq 0 ] || die 111 'this needs root' 'log in as root, or use sudo'
}

# now: the time as RFC 3339 in UTC, to standard output.
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# unescape VALUE: leaves its bytes in $unescaped (\ooo as in /proc/self/mountinfo).
unescape() {
    case $1 in
    *\\*)
        unescaped=$(printf '%b.' "$(printf '%s' "$1" | sed 's/\\/\\0/g')")
        unescaped=${unescaped%.}
        ;;
    *) unescaped=$1 ;;
    esac
}

# escaped: NUL-separated records on standard input, one a line on standard output, as unescape reads them.
escaped() { sed -z 's/\\/\\134/g; s/\n/\\012/g' | tr '\0' '\n'; }

# plan_values KEY FILE: the values of KEY in a line-oriented file, one a line, still escaped.
plan_values() {
    [ ! -f "$2" ] || sed -n "s/^$1 //p" "$2"
}

# write_file PATH: standard input becomes PATH by one rename; a crash leaves the old or the new content.
write_file() {
    cat >"$1.new" || return
    # The name can be on the disk before the contents are: after a loss of power they would be zeros.
    case $1 in "$RUN"/* | "$SYS/lock"/*) ;; *) sync -- "$1.new" || return ;; esac
    mv -f -- "$1.new" "$1"
}

# valid_id TEXT: true for YYYYMMDD-NNN_label.
valid_id() {
    case $1 in
    *[!0-9a-z_-]* ) return 1 ;;
    [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9]_[a-z0-9]* ) [ "${#1}" -le 77 ] ;;
    * ) return 1 ;;
    esac
}

# layout: makes the directories of FORMAT.md that are missing.
layout() {
    local found
    mkdir -p "$STATE" "$SYS/layers" "$SYS/migrations" "$SYS/generations" "$SYS/staging" "$SYS/upper" "$SYS/lock"
    [ -e "$SYS/format" ] || printf '%s\n' "$FORMAT" | write_file "$SYS/format"
    found=$(cat "$SYS/format")
    [ "$found" = "$FORMAT" ] ||
        die 3 "/data/system has format $found, this runner reads format $FORMAT" 'update pyinfra_overlaymig, then run its machine_prepared again'
}
