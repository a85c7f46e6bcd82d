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
    recover | gc | drift | assemble | settle) die 20 "$1 failed" 'the reason is above; run: system-migrate recover' ;;
    *) die 111 "$1 failed before it changed anything" 'the reason is above' ;;
    esac
}

# sort: sort(1), which puts what does not fit into its memory, some megabytes from a pipe, into files: the base's /tmp is
# read-only. Lists that a stage has on the disk are sorted there (TMPDIR).
sort() { command sort -T "${TMPDIR:-$RUN}" "$@"; }

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

# plan_values KEY FILE: the values of KEY in a line-oriented file, one a line, still escaped. Without a process of its own:
# it is asked for all the time.
plan_values() {
    local line values
    values=
    [ ! -f "$2" ] || while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        "$1 "*)
            values="$values${line#"$1 "}
"
            ;;
        # One for each file of a bundle, and last in a plan.
        'member '*) break ;;
        esac
    done <"$2"
    # At once: a reader that has found what it looks for is gone.
    [ -z "$values" ] || printf %s "$values" 2>/dev/null
}

# plan_says KEY FILE: true when its value there is `yes`.
plan_says() { [ "$(plan_values "$1" "$2")" = yes ]; }

# drop PATH…: removes these, with all that is in them, as far as they are there.
drop() {
    local path
    for path; do
        if there "$path"; then
            rm -rf -- "$@"
            return
        fi
    done
}

# make_dirs PATH…: these are directories.
make_dirs() {
    local path
    for path; do
        if [ ! -d "$path" ]; then
            mkdir -p -- "$@"
            return
        fi
    done
}

# there PATH: true when PATH exists, dangling links too.
there() { [ -e "$1" ] || [ -L "$1" ]; }

# line FILE: its first line, empty where there is none, left in $line.
line() {
    line=
    [ ! -f "$1" ] || read -r line <"$1" || :
}

# linked LINK PATH…: which of PATH a symbolic link means, by name, to standard output.
linked() {
    local link path
    link=$1
    shift
    for path; do
        if [ "$path" -ef "$link" ]; then
            echo "${path##*/}"
            return
        fi
    done
    readlink -- "$link"
}

# write_file PATH TEXT: these lines become PATH by one rename; a crash leaves the old or the new content.
write_file() {
    printf '%s\n' "$2" >"$1.new" || return
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
    local line
    make_dirs "$STATE" "$SYS/layers" "$SYS/migrations" "$SYS/generations" "$SYS/staging" "$SYS/upper" "$SYS/lock"
    [ -e "$SYS/format" ] || write_file "$SYS/format" "$FORMAT"
    line "$SYS/format"
    [ "$line" = "$FORMAT" ] ||
        die 3 "/data/system has format $line, this runner reads format $FORMAT" 'update pyinfra_overlaymig, then run its machine_prepared again'
}
