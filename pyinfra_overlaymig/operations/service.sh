#!/bin/sh
# Brings one service of an s6 scan directory to what is wanted, step by step. Each step may be repeated.
#
# The functions of service_ready.sh come before it, which read `until` and `before`.
# shellcheck disable=SC2034
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
# Where a service that was defined or started here does not get ready it is as before: what nobody repairs would die and
# start for ever, and at every boot.
set -eu
umask 022
scandir=$1 sourcedir=$2 livedir=$3 name=$4 log=$5 seconds=$6
shift 6
dir=$scandir/$name
live=$livedir/$name
source=${sourcedir:+$sourcedir/$name}
# What it was before, where neither s6-svscan nor a boot nor the runner looks for services; it need not outlive a boot.
aside=$scandir/.$name.before
until=$(($(seconds_up) + seconds))
steps=" $* " paused='' undo='' was='' before=''
trap 'give_back $?' EXIT
trap 'exit 1' HUP INT TERM

# give_back STATUS: where this fails, the service is as before, and what was paused and is to run again starts; it waits for
# its needs by itself.
give_back() {
    [ "$1" -ne 0 ] || return 0
    until=$(($(seconds_up) + 10))
    case $undo in
    down) s6-svc "$(option d)" "$dir" && echo "  it is down again, as before" >&2 ;;
    remove) (trap - EXIT; remove) && echo "  it is not defined any more, as before" >&2 ;;
    restore) restore && echo "  it has the definition of before again" >&2 ;;
    esac || :
    rm -rf -- "$aside"
    for other in $paused; do s6-svc -u "$scandir/$other" || :; done
}

# option LETTER: of s6-svc, in the form that lasts where the directory that s6-supervise looks at is a copy.
option() { if kept; then echo "-$1" | tr du DU; else echo "-$1"; fi; }

# kept: true where the next boot makes the service from a copy.
kept() { [ -n "$source" ] && [ -d "$source" ]; }

# boot: the directory whose `down` file a boot obeys, to standard output.
boot() { if kept; then echo "$source"; else echo "$dir"; fi; }

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
    was=up
    if s6-svok "$dir" 2>/dev/null; then
        [ "$(s6-svstat -o wantedup "$dir")" = true ] || was=down
    elif [ -f "$(boot)/down" ]; then
        was=down
    fi
    wanted=$1
    [ "$wanted" != same ] || wanted=$was
    back=remove
    rm -rf -- "$aside"
    if kept || [ -d "$live" ]; then back=restore; elif [ -e "$dir" ]; then back=down; fi
    [ -z "$source" ] || keep
    drop
    undo=$back
    [ "$wanted" = up ] || : >"$livedir/.$name.new/down"
    of_the_base "$livedir/.$name.new"
    mkdir -p -- "$aside"
    [ ! -d "$live" ] || mv -T -- "$live" "$aside/live"
    mv -T -- "$livedir/.$name.new" "$live"
    supervise
}

# of_the_base DIR: for the runner, which asks what is supervised whether the running root still has it.
of_the_base() {
    if [ -n "$source" ] && [ -d /data/system ]; then echo base >"$1/layer"; fi
}

# restore: the definition of before is there again, and the service as it was. Where something else keeps it, or nothing.
restore() (
    trap - EXIT
    drop
    rm -rf -- "$live" "$livedir/.$name.new"
    if [ -d "$aside/kept" ]; then
        rm -rf -- "$sourcedir/.$name.new"
        cp -a -- "$aside/kept" "$sourcedir/.$name.new"
        rm -rf -- "$source"
        mv -T -- "$sourcedir/.$name.new" "$source"
    fi
    if [ -d "$aside/live" ]; then
        rm -f -- "$aside/live/down"
        [ "$was" = up ] || : >"$aside/live/down"
        mv -T -- "$aside/live" "$live"
        supervise
    fi
    rm -rf -- "$aside"
)

# keep: copies the new definition to the source directory, on the disk before it is there by name.
keep() {
    mkdir -p -- "$sourcedir"
    rm -rf -- "$sourcedir/.$name.new" "$sourcedir/.$name.old"
    cp -a -- "$livedir/.$name.new" "$sourcedir/.$name.new"
    [ ! -f "$(boot)/down" ] || : >"$sourcedir/.$name.new/down"
    find "$sourcedir/.$name.new" -type f -exec sync -- {} +
    if kept; then
        mkdir -p -- "$aside"
        cp -a -- "$source" "$aside/kept"
        mv -T -- "$source" "$sourcedir/.$name.old"
    fi
    mv -T -- "$sourcedir/.$name.new" "$source"
    rm -rf -- "$sourcedir/.$name.old"
}

# done_with: what it was before is given up.
done_with() {
    undo=
    rm -rf -- "$aside"
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
    before=$(s6-svdt -n 1 "$dir" 2>/dev/null) || before=
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
    if [ -z "$undo" ] && [ "$(s6-svstat -o wantedup "$dir" 2>/dev/null)" != true ]; then undo=down; fi
    supervise
    start "$(option u)"
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

down() {
    s6-svok "$dir" 2>/dev/null || return 0
    s6-svc -wD -T "$((seconds * 1000))" "$(option d)" "$dir" ||
        fail_with_output "did not stop within $seconds s"
}

restart() {
    before=$(s6-svdt -n 1 "$dir" 2>/dev/null) || before=
    s6-svc -wr -T "$((seconds * 1000))" -ru "$dir" || fail_with_output "did not start again within $seconds s"
    # Its end now was a death as well.
    ready 1
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
    before=$(s6-svdt -n 1 "$dir" 2>/dev/null) || before=
    start -u
    ready
}

# remove: the kept copy goes first, so that it does not come back with the next boot.
remove() {
    not_of_a_migration
    [ -z "$source" ] || rm -rf -- "$source" "$sourcedir/.$name.new" "$sourcedir/.$name.old"
    drop
    rm -rf -- "$live" "$livedir/.$name.new" "$aside"
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
done_with
