#!/bin/sh
# Says what s6 supervises from the scan directory $1, and what is kept in the directory $2 for the next boot ('' for
# none), one `key value` a line and last `end`. Changes nothing.
set -u
LC_ALL=C
export LC_ALL

# files DIR ARGUMENT…: find(1) over what defines the service in DIR: neither what s6-supervise keeps there, nor whether
# it starts at boot, nor what a service of ours notes when it starts.
files() {
    cd "$1" || return
    shift
    find . \( -name supervise -o -name event -o -path ./down -o -path ./layer -o -path ./group -o -path ./log/group \
        -o -path ./reason -o -path ./pre-start.said \) \
        -prune -o "$@"
}

# definition DIR: one digest of these files: their contents, their names, and which of them are programs.
definition() {
    [ -f "$1/run" ] || { echo -; return; }
    {
        (files "$1" -type f -exec sha256sum {} +)
        (files "$1" -type f -perm -100 -print)
        (files "$1" ! -type f ! -type d -print)
        (files "$1" -path './env/*' -perm /077 -print)
    } | sort | sha256sum | cut -d ' ' -f 1
}

# service NAME: all about one.
service() {
    if [ -d "$1/supervise" ] && ! [ -x "$1/supervise" ]; then
        echo 'this needs root: log in as root, or use --sudo' >&2
        exit 111
    fi
    printf 'service %s\n' "$1"
    if stat=$(s6-svstat -o up,wantedup,ready,pid,updownfor "./$1" 2>/dev/null); then
        echo "state $stat"
        s6-svdt -n 10 "./$1" | s6-tai64nlocal -g | sed 's/^/death /'
    fi
    [ ! -f "$1/data/needs" ] || sed 's/^/needs /' "$1/data/needs"
    [ ! -f "$1/notification-fd" ] || echo 'tells ready'
    [ ! -f "$1/reason" ] || printf 'reason %s\n' "$(head -n 1 "$1/reason" | sed 's/[^[:print:]]/?/g')"
    boot=$1
    [ -z "$kept" ] || [ ! -d "$kept/$1" ] || boot=$kept/$1
    [ ! -f "$boot/down" ] || echo 'boot down'
    echo "defined $(definition "$scandir/$1")"
    [ -z "$kept" ] || echo "kept $(definition "$kept/$1")"
}

scandir=$1
kept=$2
echo "now $(date +%s)"
for dir in "$scandir"/*/ ${kept:+"$kept"/*/}; do
    [ ! -d "$dir" ] || { dir=${dir%/}; printf '%s\n' "${dir##*/}"; }
done | sort -u | {
    cd "$scandir" 2>/dev/null || cd /
    while IFS= read -r name; do service "$name"; done
} || exit
echo end
