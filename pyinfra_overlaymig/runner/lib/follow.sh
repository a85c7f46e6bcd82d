# Services follow the generation: after a switch those that are gone are removed, those that are new or changed (their
# definition, or a file that they run from) are started anew, with all that needs them; the others are left running.
# shellcheck shell=dash
#
# <service directory>/data/needs   names of services that have to be ready before it, one a line
# limits: restart NAME always|changed|never

# services_order: the services of the running root, each after those that it needs, one a line, to standard output.
services_order() {
    local dir name
    for dir in "$LIVE/$SERVICES"/*/; do
        name=${dir%/}
        name=${name##*/}
        [ -d "$dir" ] || continue
        printf '%s %s\n' "$name" "$name"
        [ ! -f "$dir/data/needs" ] || sed "s/\$/ $name/" "$dir/data/needs"
    done | tsort | while read -r name; do
        # What is needed may have gone with its layer.
        [ ! -d "$LIVE/$SERVICES/$name" ] || echo "$name"
    done
}

# services_needing SERVICE…: these and all that need them, in the order in which they have to stop, one a line, to standard
# output. What is supervised counts, whether the running root has it or not.
services_needing() {
    [ "$#" -gt 0 ] || return 0
    {
        printf 'wanted %s\n' "$@"
        grep -sH . "$SERVICEDIRS"/*/data/needs | sed "s,^$SERVICEDIRS/\\([^/]*\\)/data/needs:,needs \\1 ,"
    } | awk '
        $1 == "wanted" { depth[$2] = 1; next }
        { needs[++n] = $2; needed[n] = $3 }
        END {
            # As deep as the longest way to it; more rounds than there are edges would be a circle.
            for (round = 0; round <= n; round++)
                for (i = 1; i <= n; i++)
                    if (needed[i] in depth && depth[needs[i]] <= depth[needed[i]]) depth[needs[i]] = depth[needed[i]] + 1
            for (name in depth) print depth[name], name
        }' | sort -rn | cut -d ' ' -f 2
}

# services_follow JOURNAL LAYERS: brings the services to the running root; LAYERS, a file, has the ids of the layers that
# came or went. What is stopped is noted in JOURNAL. Fails, with its last output shown, when a service does not get ready;
# with `back`, the others are started before that.
services_follow() {
    local name left failed
    if ! services_supported; then
        [ -z "$(services_order)" ] || { warn 's6-svscan does not run here: no service can be started'; return 1; }
        return 0
    fi
    services_touched "$2" >"$RUN/touched"
    # shellcheck disable=SC2046 # one word for each service
    [ ! -s "$RUN/touched" ] || services_pause "$1" $(services_needing $(cat "$RUN/touched"))
    services_gone | while read -r name; do
        say "removing service $name"
        service_drop "$name"
    done
    left='' failed=
    for name in $(services_order); do
        if ! service_current "$name" && { [ "$(service_restart "$name")" != never ] || [ ! -L "$SCANDIR/$name" ]; }; then
            say "starting service $name"
            service_install "$LIVE/$SERVICES/$name" "$name"
            [ -e "$LIVE/$SERVICES/$name/down" ] || service_ready "$name" || failed="$failed $name"
        elif grep -sqxF -- "$name" "$1/paused"; then
            say "starting service $name again"
            s6-svc -u "$SCANDIR/$name"
            service_ready "$name" || failed="$failed $name"
        elif grep -qxF -- "$(service_layer "$name")" "$2" && [ ! -e "$LIVE/$SERVICES/$name/down" ]; then
            # A boot, or a run that was interrupted, has started it: what is being finished stands or falls with it.
            say "waiting for service $name"
            service_ready "$name" || failed="$failed $name"
        elif [ "$(s6-svstat -o up "$SCANDIR/$name" 2>/dev/null)" = true ]; then
            left="$left $name"
        fi
        [ -z "$failed" ] || [ "${3-}" = back ] || return 1
    done
    [ ! -f "$1/paused" ] || services_others "$1"
    [ -z "$left" ] || say "left running:$left"
    [ -z "$failed" ]
}

# services_others JOURNAL: starts what was stopped and is somebody else's: no layer has it, nor the base.
services_others() {
    local name
    while read -r name; do
        if [ ! -d "$LIVE/$SERVICES/$name" ] && [ -e "$SCANDIR/$name" ] && [ ! -f "$SERVICEDIRS/$name/layer" ]; then
            s6-svc -u "$SCANDIR/$name"
        fi
    done <"$1/paused"
}

# services_gone: what is supervised and not in the running root, in the order in which it has to stop, to standard output.
services_gone() {
    local dir name gone
    gone=
    for dir in "$SERVICEDIRS"/*/; do
        name=${dir%/}
        name=${name##*/}
        # What has no layer is somebody else's.
        if [ -f "$dir/layer" ] && [ ! -d "$LIVE/$SERVICES/$name" ]; then gone="$gone $name"; fi
    done
    # shellcheck disable=SC2086 # one word for each service
    [ -z "$gone" ] || services_needing $gone | while read -r name; do
        [ -d "$LIVE/$SERVICES/$name" ] || echo "$name"
    done
}

# services_touched LAYERS: the supervised services that have to start anew, one a line, to standard output: their definition
# is another one or gone, a file that they have open or mapped is one that LAYERS changed, or they want it at each switch.
services_touched() {
    local layer dir name
    while read -r layer; do
        for dir in "$SYS/migrations/$layer" "$SYS/staging/$layer"; do
            [ ! -f "$dir/changes.list" ] || cut -d ' ' -f 9 "$dir/changes.list"
        done
    done <"$1" | sed 's,^,/,; s/\\040/ /g; s/\\011/\t/g; s/\\134/\\/g' | sort -u >"$RUN/changed"
    for dir in "$SERVICEDIRS"/*/; do
        name=${dir%/}
        name=${name##*/}
        [ -f "$dir/layer" ] || continue
        case $(service_restart "$name") in
        never) ;;
        always) echo "$name" ;;
        *) if ! service_current "$name" || service_uses "$name" "$RUN/changed"; then echo "$name"; fi ;;
        esac
    done
}

# service_restart NAME: when a switch restarts it.
service_restart() {
    local when
    when=$(plan_values "restart $1" "$SYS/migrations/$(service_layer "$1")/limits")
    echo "${when:-changed}"
}

# service_uses NAME PATHS: true when a process of NAME has one of PATHS, sorted lines, open or mapped.
service_uses() {
    local session process
    [ -s "$2" ] || return 1
    session=$(s6-svstat -o pid "$SCANDIR/$1" 2>/dev/null) || return 1
    [ "$session" -gt 0 ] || return 1
    # s6-supervise makes a service the leader of a session of its own. Fields after the name, which may hold anything.
    grep -sH . /proc/[0-9]*/stat | sed 's,^/proc/\([0-9]*\)/stat:.*) ,\1 ,' |
        awk -v session="$session" '$5 == session { print $1 }' | while read -r process; do
            sed 's/^[^/]*//; s/ (deleted)$//' "/proc/$process/maps" 2>/dev/null || :
            find "/proc/$process/fd" -mindepth 1 -printf '%l\n' 2>/dev/null || :
        done | sort -u | comm -12 - "$2" | grep -q .
}
