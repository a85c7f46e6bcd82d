# Services under s6: the service directories of the stack run from copies in /run/services, linked into the scan
# directory /run/service; a boot starts with both empty.
# shellcheck shell=dash

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

# service_drop NAME: stops a service, its supervisor and its logger, and removes it.
service_drop() {
    if [ -L "$SCANDIR/$1" ]; then
        s6-svunlink -t 30000 "$SCANDIR" "$1" || warn "service $1 did not stop in time"
    fi
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

# services_reconcile: after a switch to another stack: services that the running root does not have go, those that it
# has anew, or from another layer, are started and waited for; the others are left running.
services_reconcile() {
    local dir name
    services_supported || return 0
    for dir in "$SERVICEDIRS"/*/; do
        name=${dir%/}
        name=${name##*/}
        if [ -d "$dir" ] && [ ! -d "$LIVE/$SERVICES/$name" ]; then
            say "removing service $name"
            service_drop "$name"
        fi
    done
    for dir in "$LIVE/$SERVICES"/*/; do
        name=${dir%/}
        name=${name##*/}
        [ -d "$dir" ] || continue
        if [ -L "$SCANDIR/$name" ] && [ "$(cat "$SERVICEDIRS/$name/layer" 2>/dev/null)" = "$(service_layer "$name")" ]; then
            continue
        fi
        service_bring_up "${dir%/}" "$name" "$(service_layer "$name")"
    done
}

# service_bring_up SOURCE NAME LAYER: supervises NAME anew and waits until it is ready, within the limit that the
# migration LAYER gives it. Fails, with the end of its output shown, when it is not.
service_bring_up() {
    local limit
    say "starting service $2"
    service_install "$1" "$2"
    limit=$(plan_values "ready-timeout $2" "$SYS/migrations/$3/limits")
    if ! service_wait "$2" "${limit:-60}"; then
        service_output "$2"
        return 1
    fi
}

# services_start ID: (re)starts the services of migration ID and waits until each is ready.
# Returns non-zero, with the end of its output shown, when one is not.
services_start() {
    local service
    for service in $(plan_values service "$SYS/migrations/$1/record"); do
        services_supported || { warn 's6-svscan does not run here: no service can be started'; return 1; }
        service_bring_up "$SYS/layers/$1/$SERVICES/$service" "$service" "$1"
    done
}

# service_wait NAME SECONDS: true once NAME is ready and stays so for a second; a service that tells no readiness has
# to live for three. False as soon as it died three times, or when the time is over.
service_wait() {
    local dir until settle state pid age ready deaths
    dir=$SCANDIR/$1
    until=$(($(date +%s) + $2))
    settle=1
    [ -f "$dir/notification-fd" ] || settle=3
    while [ "$(date +%s)" -le "$until" ]; do
        state=$(s6-svstat -o pid,ready,updownfor "$dir" 2>/dev/null || echo '-1 false 0')
        pid=${state%% *}
        age=${state##* }
        ready=${state#* }
        ready=${ready%% *}
        [ -f "$dir/notification-fd" ] || ready=true
        if [ "$pid" -gt 0 ] && [ "$ready" = true ] && [ "$age" -ge "$settle" ]; then return 0; fi
        deaths=$(s6-svdt "$dir" 2>/dev/null | wc -l)
        if [ "$deaths" -ge 3 ]; then
            warn "service $1 died $deaths times while it started"
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

# services_remove ID: takes the services of a reverted migration away.
services_remove() {
    local service
    for service in $(plan_values service "$SYS/migrations/$1/record"); do
        if [ -d "$LIVE/$SERVICES/$service" ]; then
            # An earlier migration has a service of that name: back to that one.
            service_install "$LIVE/$SERVICES/$service" "$service"
        else
            service_drop "$service"
        fi
    done
}

# services_forget ID: what services that are new with ID left in state goes: their mark, and their log to the evidence.
services_forget() {
    local service
    [ -f "$SYS/staging/$1/services.new" ] || return 0
    while read -r service; do
        rm -rf -- "${STATE:?}/services/$service"
        if [ -d "$STATE/var/log/$service" ]; then
            rm -rf -- "$SYS/staging/$1/log.$service"
            mv -T -- "$STATE/var/log/$service" "$SYS/staging/$1/log.$service"
        fi
        state_prune "$STATE/services/$service"
        state_prune "$STATE/var/log/$service"
    done <"$SYS/staging/$1/services.new"
}

# services_pause ID: stops what a stage's manifest names in `stop`.
services_pause() {
    local service
    for service in $(plan_values stop "$SYS/staging/$1/plan"); do
        [ -e "$SCANDIR/$service" ] || continue
        [ "$(s6-svstat -o wantedup "$SCANDIR/$service" 2>/dev/null)" = true ] || continue
        say "stopping service $service"
        echo "$service" >>"$SYS/staging/$1/paused"
        s6-svc -wD -T 30000 -d "$SCANDIR/$service"
    done
}

# services_resume ID: starts again what services_pause stopped, and only that.
services_resume() {
    local service
    [ -f "$SYS/staging/$1/paused" ] || return 0
    while read -r service; do
        [ ! -e "$SCANDIR/$service" ] || s6-svc -u "$SCANDIR/$service"
    done <"$SYS/staging/$1/paused"
}

# services_boot ROOT: every service directory of ROOT, the base's own too, goes into the scan directory.
services_boot() {
    local service
    mkdir -p "$SCANDIR" "$SERVICEDIRS"
    for service in "$1/$SERVICES"/*/; do
        [ -d "$service" ] || continue
        service=${service%/}
        rm -rf -- "${SERVICEDIRS:?}/${service##*/}"
        cp -a -- "$service" "$SERVICEDIRS/"
        service_layer "${service##*/}" >"$SERVICEDIRS/${service##*/}/layer"
        ln -sfn "$SERVICEDIRS/${service##*/}" "$SCANDIR/${service##*/}"
    done
}
