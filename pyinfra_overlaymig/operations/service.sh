#!/bin/sh
# Brings one service of an s6 scan directory to what is wanted, step by step. Each step may be repeated.
#
#   service.sh SCANDIR SOURCEDIR LIVEDIR NAME LOG SECONDS STEP…
#
#   define up|down|same   the tar.gz on standard input is its service directory; it is to run, or not, or as before
#   up, down, restart     it is ready; it is down; it was started anew and is ready
#   signal LETTER         its process got the signal that s6-svc calls so
#   pause OTHER           OTHER, which needs it, is down
#   resume OTHER          OTHER is ready again
#   release OTHER         OTHER starts again, as it was starting before
#   enable, disable       it starts at boot, or not
#   remove                it is gone, with its supervisor and its logger
#
# SOURCEDIR keeps what a boot copies to LIVEDIR and links into SCANDIR; '' where nothing does. Of a service that is kept,
# the `down` file there is for the next boot, and that in LIVEDIR for a new s6-supervise, should this one be killed.
set -eu
umask 022
scandir=$1 sourcedir=$2 livedir=$3 name=$4 log=$5 seconds=$6
shift 6
dir=$scandir/$name
live=$livedir/$name
source=${sourcedir:+$sourcedir/$name}
# Seconds by a clock that nobody sets.
seconds_up() { while read -r up _; do echo "${up%%.*}"; done </proc/uptime; }
until=$(($(seconds_up) + seconds))
steps=" $* " paused=
trap 'give_back $?' EXIT
trap 'exit 1' HUP INT TERM

# give_back STATUS: where this fails, what was paused and is to run again starts; it waits for its needs by itself.
give_back() {
    [ "$1" -eq 0 ] || for other in $paused; do s6-svc -u "$scandir/$other" || :; done
}

# kept: true where the next boot makes the service from a copy.
kept() { [ -n "$source" ] && [ -d "$source" ]; }

# boot: the directory whose `down` file a boot obeys, to standard output.
boot() { if kept; then echo "$source"; else echo "$dir"; fi; }

# fail WHAT HINT: says both and leaves.
fail() {
    printf 'service %s %s\n  hint: %s\n' "$name" "$1" "$2" >&2
    exit 1
}

# fail_with_output WHAT: the same with the end of the service's log, which tells more than any hint.
fail_with_output() {
    printf 'service %s %s\n' "$name" "$1" >&2
    if [ -s "$log/current" ]; then
        printf 'its last output, from %s:\n' "$log/current" >&2
        # As bytes that are no ASCII may be no text for who reads this.
        tail -n 20 -- "$log/current" | LC_ALL=C sed 's/[^[:print:][:space:]]/?/g; s/^/    /' >&2
    elif [ -n "$log" ]; then
        printf '  hint: it wrote nothing to %s\n' "$log" >&2
    else
        printf '  hint: it has no log of its own; see the output of s6-svscan\n' >&2
    fi
    exit 1
}

# in_time: true until the time is over; a moment passes.
in_time() { [ "$(seconds_up)" -lt "$until" ] && sleep 0.1; }

# not_of_a_migration: leaves where a layer has the service: only its migration may change or take it.
not_of_a_migration() {
    [ -f "$live/layer" ] || return 0
    read -r layer <"$live/layer" || return 0
    [ "$layer" = base ] ||
        fail "belongs to the migration $layer" "put the change into a new migration, or go back to before $layer"
}

# define WANTED: the definition is made aside and takes its place by rename; the service stops meanwhile. The kept copy
# comes first: from it the next boot, or the next run of this, makes the other.
define() {
    not_of_a_migration
    mkdir -p -- "$livedir"
    rm -rf -- "$livedir/.$name.new"
    mkdir -- "$livedir/.$name.new"
    tar -C "$livedir/.$name.new" -xzpf -
    wanted=$1
    if [ "$wanted" = same ]; then
        wanted=up
        if s6-svok "$dir" 2>/dev/null; then
            [ "$(s6-svstat -o wantedup "$dir")" = true ] || wanted=down
        elif [ -f "$(boot)/down" ]; then
            wanted=down
        fi
    fi
    [ -z "$source" ] || keep
    drop
    [ "$wanted" = up ] || : >"$livedir/.$name.new/down"
    # For the runner, which asks what is supervised whether the running root still has it.
    if [ -n "$source" ] && [ -d /data/system ]; then echo base >"$livedir/.$name.new/layer"; fi
    rm -rf -- "$live"
    mv -T -- "$livedir/.$name.new" "$live"
    supervise
}

# keep: copies the new definition to the source directory, on the disk before it is there by name.
keep() {
    mkdir -p -- "$sourcedir"
    rm -rf -- "$sourcedir/.$name.new" "$sourcedir/.$name.old"
    cp -a -- "$livedir/.$name.new" "$sourcedir/.$name.new"
    [ ! -f "$(boot)/down" ] || : >"$sourcedir/.$name.new/down"
    find "$sourcedir/.$name.new" -type f -exec sync -- {} +
    ! kept || mv -T -- "$source" "$sourcedir/.$name.old"
    mv -T -- "$sourcedir/.$name.new" "$source"
    rm -rf -- "$sourcedir/.$name.old"
}

# drop: nothing supervises the service any more, nor its logger.
drop() {
    old=$live
    if [ -L "$dir" ]; then
        old=$(readlink -f -- "$dir" || echo "$live")
        s6-svunlink -X "$scandir" "$name" 2>/dev/null || rm -f -- "$dir"
    elif [ -d "$dir" ]; then
        # Not a link but the service directory itself: s6-svscan does not see names that begin with a dot.
        old=$scandir/.$name.old
        rm -rf -- "$old"
        mv -T -- "$dir" "$old"
        s6-svscanctl -an "$scandir"
    fi
    while s6-svok "$old" 2>/dev/null || s6-svok "$old/log" 2>/dev/null; do
        in_time || fail_with_output "did not stop within $seconds s"
    done
    rm -rf -- "$scandir/.$name.old"
}

# supervise: s6-supervise runs for it. A service that is kept only is copied first, as a boot does it.
supervise() {
    ! s6-svok "$dir" 2>/dev/null || return 0
    if [ ! -e "$dir" ]; then
        if [ ! -d "$live" ]; then
            mkdir -p -- "$livedir"
            rm -rf -- "$livedir/.$name.new"
            kept || fail 'is not there' 'say what it is: run=…, or name another scandir'
            cp -a -- "$source" "$livedir/.$name.new"
            mv -T -- "$livedir/.$name.new" "$live"
        fi
        rm -f -- "$dir"
        ln -s -- "$live" "$dir"
    fi
    s6-svscanctl -a "$scandir"
    until s6-svok "$dir" 2>/dev/null; do
        in_time || fail 'is not supervised' "see what s6-svscan says about $dir"
    done
}

# up: it runs, it tells that it is ready, if it tells, and stays so for a while, longer where it tells nothing.
up() {
    supervise
    start "-$(if kept; then echo U; else echo u; fi)"
    ready
}

# start OPTION: s6-svc OPTION, and s6-supervise has heard it: until then it looks as if it had given up.
start() {
    s6-svc "$1" "$dir"
    tries=0
    until [ "$(s6-svstat -o wantedup "$dir")" = true ] || [ "$tries" -ge 50 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
}

ready() {
    settle=@SETTLES@ deaths=@DEATHS@ starts=0 last=
    if [ ! -f "$dir/@TELLS@" ] || [ -f "$dir/@BEGINS@" ]; then settle=@SETTLES_SILENT@; fi
    while :; do
        # shellcheck disable=SC2046 # four words
        set -- $(s6-svstat -o pid,ready,wantedup,updownfor "$dir" 2>/dev/null || echo -1 false true 0)
        [ -f "$dir/@TELLS@" ] || set -- "$1" true "$3" "$4"
        if [ "$1" -gt 0 ] && [ "$1" != "$last" ]; then
            last=$1
            starts=$((starts + 1))
        fi
        if [ "$1" -gt 0 ] && [ "$2" = true ] && [ "$4" -ge "$settle" ]; then return 0; fi
        [ "$3" = true ] || fail_with_output "has given up: $(last_death)"
        [ "$starts" -le "$deaths" ] || fail_with_output "died three times while it started: $(last_death)"
        in_time || break
    done
    # Ready at last, be it not for long.
    if [ "$1" -gt 0 ] && [ "$2" = true ]; then return 0; fi
    fail_with_output "is not ready within $seconds s"
}

# last_death: how its process ended the last time, to standard output.
last_death() { s6-svdt -n 1 "$dir" 2>/dev/null | cut -d ' ' -f 2-; }

down() {
    s6-svok "$dir" 2>/dev/null || return 0
    s6-svc -wD -T "$((seconds * 1000))" "-$(if kept; then echo D; else echo d; fi)" "$dir" ||
        fail_with_output "did not stop within $seconds s"
}

restart() {
    s6-svc -wr -T "$((seconds * 1000))" -ru "$dir" || fail_with_output "did not start again within $seconds s"
    ready
}

# pause OTHER: what needs this service does not run on without it.
pause() {
    case $steps in *" resume $1 "* | *" release $1 "*) paused="$paused $1" ;; esac
    s6-svc -wD -T "$((seconds * 1000))" -d "$scandir/$1" || fail "is needed by $1, which did not stop within $seconds s" \
        "see what $1 has to say, or give both more time: timeout=…"
}

# resume OTHER: starts it again, now that this service is ready.
resume() {
    log=${log:+${log%/*}/$1}
    name=$1
    dir=$scandir/$1
    start -u
    ready
}

# remove: the kept copy goes first, so that it does not come back with the next boot.
remove() {
    not_of_a_migration
    [ -z "$source" ] || rm -rf -- "$source" "$sourcedir/.$name.new" "$sourcedir/.$name.old"
    drop
    rm -rf -- "$live" "$livedir/.$name.new"
}

# Its directory outlives s6-svscan: whether it is there shows when it is told to look around.
[ "$1" = remove ] || s6-svscanctl -a "$scandir" 2>/dev/null ||
    fail 'cannot be supervised' "no s6-svscan runs on $scandir: start one, or name another scandir"
while [ "$#" -gt 0 ]; do
    case $1 in
    define) define "$2"; shift ;;
    up) up ;;
    down) down ;;
    restart) restart ;;
    pause) pause "$2"; shift ;;
    resume) (trap - EXIT; resume "$2"); shift ;;
    release) s6-svc -u "$scandir/$2"; shift ;;
    signal) s6-svc "-$2" "$dir"; shift ;;
    enable) rm -f -- "$(boot)/down" ;;
    disable) : >"$(boot)/down" ;;
    remove) remove ;;
    esac
    shift
done
