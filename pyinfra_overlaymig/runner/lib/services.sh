# Services under s6: the service directories of the stack run from copies in /run/services, linked into the scan
# directory /run/service; a boot starts with both empty.
# shellcheck shell=dash

# Seconds within which a service has to stop, or what wanted it stopped fails.
STOP_WITHIN=120

# services_supported: true when s6-svscan runs on the scan directory.
services_supported() { [ -p "$SCANDIR/.s6-svscan/control" ]; }

# service_install SOURCE NAME: supervises a copy of SOURCE as the service NAME, in place of one of that name.
service_install() {
    service_drop "$2"
    mkdir -p "$SERVICEDIRS"
    cp -a -- "$1" "$SERVICEDIRS/$2"
    service_layer "$2" >"$SERVICEDIRS/$2/layer"
    s6-svlink -t 10000 "$SCANDIR" "$SERVICEDIRS/$2"
}

# service_drop NAME: stops a service, its supervisor and its logger, and removes it. Fails when one of them stays: what takes
# its place would run beside it.
service_drop() {
    local tries
    if [ -L "$SCANDIR/$1" ]; then s6-svunlink -X "$SCANDIR" "$1" 2>/dev/null || rm -f -- "$SCANDIR/$1"; fi
    # Whoever unlinked it before may have been killed before s6-svscan was told.
    if [ -d "$SERVICEDIRS/$1" ]; then s6-svscanctl -an "$SCANDIR" 2>/dev/null || :; fi
    tries=0
    while s6-svok "$SERVICEDIRS/$1" 2>/dev/null || s6-svok "$SERVICEDIRS/$1/log" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt $((STOP_WITHIN * 10)) ]; then
            warn "service $1 did not stop within $STOP_WITHIN s (timeout_kill in its manifest would end it)"
            return 1
        fi
        sleep 0.1
    done
    rm -rf -- "${SERVICEDIRS:?}/$1"
}

# service_layer NAME: the topmost layer of the current generation that defines NAME, `base` when none does, to standard
# output.
service_layer() {
    local layer top
    top=base
    for layer in $(generation_stack "$(generation_current)"); do
        [ ! -d "$SYS/layers/$layer/$SERVICES/$1" ] || top=$layer
    done
    echo "$top"
}

# service_current NAME: true when what is supervised as NAME is what the current generation defines.
service_current() {
    [ -L "$SCANDIR/$1" ] && line "$SERVICEDIRS/$1/layer" && [ "$line" = "$(service_layer "$1")" ]
}

# service_ready NAME: waits until NAME is ready, within its limit. Fails, with the end of its output shown, when it is not.
service_ready() {
    if ! service_wait "$1" "$(service_limit "$1")"; then
        service_output "$1"
        return 1
    fi
}

# service_limit NAME: the seconds that its migration gives it to get ready, to standard output.
service_limit() {
    local limit
    limit=$(plan_values "ready-timeout $1" "$SYS/migrations/$(service_layer "$1")/limits")
    echo "${limit:-60}"
}

# services_late: the names of the generation's services that do not get ready, each within its limit once those that it
# needs are, on one line, to standard output. No other generation would help those of the base, or made by hand.
services_late() {
    local name late
    late=
    for name in $(services_order); do
        # One that is down by its own wish is as it should be.
        if [ -e "$LIVE/$SERVICES/$name/down" ] || [ "$(service_layer "$name")" = base ]; then continue; fi
        service_wait "$name" "$(service_limit "$name")" || late="$late $name"
    done
    printf '%s' "${late# }"
}

# service_wait NAME SECONDS: true once NAME is ready and stays so for a second; a service that tells no readiness has
# to live for three. False as soon as it died three times, or has given up, or when the time is over.
service_wait() {
    local dir until settle state pid age ready last starts
    dir=$SCANDIR/$1
    until=$(($(date +%s) + $2))
    settle=1
    [ -e "$dir" ] || { warn "service $1 is not supervised"; return 1; }
    if [ ! -f "$dir/notification-fd" ] || [ -f "$dir/data/begins" ]; then settle=3; fi
    last=-1 starts=0
    while [ "$(date +%s)" -le "$until" ]; do
        state=$(s6-svstat -o pid,ready,updownfor "$dir" 2>/dev/null || echo '-1 false 0')
        pid=${state%% *}
        age=${state##* }
        ready=${state#* }
        ready=${ready%% *}
        [ -f "$dir/notification-fd" ] || ready=true
        if [ "$pid" -gt 0 ] && [ "$ready" = true ] && [ "$age" -ge "$settle" ]; then return 0; fi
        if [ "$pid" -le 0 ] && [ -f "$dir/reason" ]; then
            warn "service $1 stays down: $(cat "$dir/reason")"
            return 1
        fi
        # s6's own tally of deaths has those of all that came before this start.
        if [ "$pid" -gt 0 ] && [ "$pid" != "$last" ]; then
            last=$pid
            starts=$((starts + 1))
        fi
        if [ "$starts" -gt 3 ]; then
            warn "service $1 died three times while it started"
            return 1
        fi
        sleep 0.2
    done
    warn "service $1 was not ready within $2 s"
    return 1
}

# service_output NAME: the end of what a service wrote, to standard error.
service_output() {
    local file
    file=$STATE/var/log/$1/current
    [ -s "$file" ] || { warn "it wrote nothing"; return 0; }
    warn "its last output:"
    tail -n 20 -- "$file" | sed 's/^/    /' >&2
}

# services_forget JOURNAL: what services that are new with a migration left in state goes: their mark, and their log to
# the evidence.
services_forget() {
    local service
    [ -f "$1/services.new" ] || return 0
    while read -r service; do
        rm -rf -- "${STATE:?}/services/$service"
        if [ -d "$STATE/var/log/$service" ]; then
            rm -rf -- "$1/log.$service"
            mv -T -- "$STATE/var/log/$service" "$1/log.$service"
        fi
        state_prune "$STATE/services/$service"
        state_prune "$STATE/var/log/$service"
    done <"$1/services.new"
}

# services_of PATHS STACK: the services whose migrations in STACK (a file of ids) have one of the state paths in the file
# PATHS, to standard output.
services_of() {
    local layer
    while read -r layer; do
        if plan_values state "$SYS/migrations/$layer/record" | grep -qxF -f "$1"; then
            plan_values service "$SYS/migrations/$layer/record"
        fi
    done <"$2" | sort -u
}

# services_pause JOURNAL SERVICE…: stops those of them that are meant to be up, and notes them. Fails when one does not stop.
services_pause() {
    local journal service failed
    failed=
    journal=$1
    shift
    for service; do
        [ -e "$SCANDIR/$service" ] || continue
        [ "$(s6-svstat -o wantedup "$SCANDIR/$service" 2>/dev/null)" = true ] || continue
        say "stopping service $service"
        echo "$service" >>"$journal/paused"
        if ! s6-svc -wD -T $((STOP_WITHIN * 1000)) -d "$SCANDIR/$service"; then
            warn "service $service did not stop within $STOP_WITHIN s (timeout_kill in its manifest would end it)"
            failed=yes
        fi
    done
    [ -z "$failed" ]
}

# services_resume JOURNAL: starts again what services_pause stopped, and only that. One that the current generation defines
# otherwise stays down until that definition takes its place: the old program must not run on new state.
services_resume() {
    local service
    [ -f "$1/paused" ] || return 0
    while read -r service; do
        if service_current "$service" || [ ! -f "$SERVICEDIRS/$service/layer" ]; then s6-svc -u "$SCANDIR/$service" || :; fi
    done <"$1/paused"
}

# services_boot ROOT: every service directory of ROOT, the base's own too, goes into the scan directory. False when one could
# not be; a second call does what is missing.
services_boot() {
    local service failed
    failed=
    mkdir -p "$SCANDIR" "$SERVICEDIRS" || failed=yes
    for service in "$1/$SERVICES"/*/; do
        [ -d "$service" ] || continue
        service=${service%/}
        [ -e "$SCANDIR/${service##*/}" ] || service_lay_out "$service" "${service##*/}" || failed=yes
    done
    [ -z "$failed" ]
}

# service_lay_out SOURCE NAME: what s6-svscan will find when it starts. The link comes last: with it, all is there.
service_lay_out() {
    rm -rf -- "${SERVICEDIRS:?}/$2" && cp -a -- "$1" "$SERVICEDIRS/" && service_layer "$2" >"$SERVICEDIRS/$2/layer" &&
        ln -sfn "$SERVICEDIRS/$2" "$SCANDIR/$2"
}
