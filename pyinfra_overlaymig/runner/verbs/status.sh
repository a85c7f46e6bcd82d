# status: all about this machine as one JSON document. Takes no lock, changes nothing, always prints, exits 0.
# shellcheck shell=dash

verb_status() {
    local current running booted digest boot_id missing
    current=$(generation_current)
    running=$(generation_running)
    booted=false
    if mountpoint -q "$BASE" && [ "$(stat -f -c %T /)" = overlayfs ] && [ -f "$RUN/running" ]; then booted=true; fi
    digest=
    [ ! -f "$HERE/digest" ] || read -r digest <"$HERE/digest"
    read -r boot_id </proc/sys/kernel/random/boot_id
    printf '{"format":%s,"runner":{"version":"%s","digest":"%s"}' "$FORMAT" "$VERSION" "$digest"
    printf ',"host":"%s","boot_id":"%s","kernel":"%s","booted":%s,"base":"%s"' \
        "$(uname -n | tr -cd 'A-Za-z0-9._-')" "$boot_id" "$(uname -r | tr -cd 'A-Za-z0-9._+-')" "$booted" \
        "$(status_base)"
    printf ',"generation":%s,"running":%s,"stack":' "$current" "$running"
    # shellcheck disable=SC2046 # ids have no spaces
    json_list $(generation_stack "$current")
    printf ',"generations":'
    status_generations
    printf ',"migrations":'
    json_migrations
    printf ',"evidence":'
    status_evidence
    printf ',"services":'
    status_services
    printf ',"lock":'
    status_lock
    missing=$(capabilities_missing)
    printf ',"missing":['
    [ -z "$missing" ] || printf '"%s"' "$(printf '%s' "$missing" | sed 's/, /","/g')"
    printf ']}\n'
}

# status_base: the identity of the base, read through the view where there is one.
status_base() {
    local root
    root=
    if mountpoint -q "$BASE"; then root=$BASE; fi
    cat "$root/etc/os-release" "$root/var/lib/dpkg/status" 2>/dev/null | sha256sum | cut -c1-16
}

status_generations() {
    local comma file
    comma=
    printf '['
    for file in "$SYS/generations"/[0-9]*; do
        case ${file##*/} in *[!0-9]*) continue ;; esac
        # shellcheck disable=SC2046
        printf '%s{"n":%s,"stack":%s}' "$comma" "${file##*/}" "$(json_list $(plan_values layer "$file"))"
        comma=,
    done
    printf ']'
}

status_evidence() {
    local comma file failed_at code key value dir
    comma=
    printf '['
    for file in "$SYS/staging"/*/failed; do
        [ -f "$file" ] || continue
        failed_at='' code=''
        while read -r key value; do
            case $key in failed_at) failed_at=$value ;; exit) code=$value ;; esac
        done <"$file"
        dir=${file%/failed}
        printf '%s{"id":"%s","failed_at":"%s","exit":"%s"}' "$comma" "${dir##*/}" "$failed_at" "$code"
        comma=,
    done
    printf ']'
}

status_services() {
    local comma clock dir up wanted ready pid age
    comma=
    clock=$(date +%s)
    printf '['
    for dir in "$SCANDIR"/*/; do
        [ -d "$dir/supervise" ] || continue
        dir=${dir%/}
        s6-svstat -o up,wantedup,ready,pid,updownfor "$dir" >"$RUN/.svstat.$$" 2>/dev/null || continue
        read -r up wanted ready pid age <"$RUN/.svstat.$$"
        # A service that announces no readiness is ready when it is up.
        [ -f "$dir/notification-fd" ] || ready=$up
        printf '%s{"name":"%s","up":%s,"ready":%s,"pid":%s,"wanted_up":%s,"since":%s}' \
            "$comma" "${dir##*/}" "$up" "$ready" "$pid" "$wanted" "$((clock - age))"
        comma=,
    done
    rm -f "$RUN/.svstat.$$"
    printf ']'
}

status_lock() {
    if lock_free; then
        printf null
    else
        lock_owner
        printf '{"who":"%s","from":"%s","pid":%s,"boot_id":"%s","since":"%s","verb":"%s","id":"%s"}' \
            "$who" "$from" "${pid:-0}" "$boot_id" "$since" "$verb" "$id"
    fi
}
