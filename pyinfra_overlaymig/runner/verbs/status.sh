# status: all about this machine as one JSON document. Takes no lock, changes nothing, always prints, exits 0.
# shellcheck shell=dash

verb_status() {
    [ "$#" -eq 0 ] || die 100 'status takes no arguments' 'system-migrate status'
    local current running booted digest boot_id missing failed
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
        "$(if mountpoint -q "$BASE"; then base_identity "$BASE"; else base_identity ''; fi)"
    failed=
    [ "$(plan_values generation "$SYS/boots")" != "$current" ] || failed=$(plan_values failed "$SYS/boots")
    printf ',"generation":%s,"running":%s,"failed_boots":%s,"stack":' "$current" "$running" "${failed:-0}"
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
    printf ',"audit":"%s"' "$(audit_state)"
    missing=$(capabilities_missing)
    printf ',"missing":['
    [ -z "$missing" ] || printf '"%s"' "$(printf '%s' "$missing" | sed 's/, /","/g')"
    printf ']}\n'
}

status_generations() {
    local comma file key value layers instead base
    comma=
    printf '['
    for file in "$SYS/generations"/[0-9]*; do
        case ${file##*/} in *[!0-9]*) continue ;; esac
        layers='' instead=null base=''
        while read -r key value; do
            case $key in layer) layers="$layers $value" ;; instead-of) instead=$value ;; base) base=$value ;; esac
        done <"$file"
        # shellcheck disable=SC2086 # one word for each value
        printf '%s{"n":%s,"stack":%s,"instead_of":%s,"base":"%s"}' \
            "$comma" "${file##*/}" "$(json_list $layers)" "$instead" "$base"
        comma=,
    done
    printf ']'
}

status_evidence() {
    local comma file failed_at code key value dir
    comma=
    printf '['
    for file in "$SYS/staging"/*/failed; do
        # Being removed.
        case $file in *.new/failed) continue ;; esac
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

# status_services: what is supervised, and what the current generation promises but nobody supervises.
status_services() {
    local comma dir name promised
    comma=
    printf '['
    for dir in "$SCANDIR"/*/; do
        [ -d "$dir/supervise" ] || continue
        dir=${dir%/}
        printf '%s' "$comma"
        status_service "$dir" "${dir##*/}"
        comma=,
    done
    promised=$(generation_stack "$current" | while read -r name; do
        plan_values service "$SYS/migrations/$name/record"
    done | sort -u)
    for name in $promised; do
        [ ! -d "$SCANDIR/$name/supervise" ] || continue
        printf '%s{"name":"%s","up":false,"ready":false,"pid":-1,"wanted_up":true,"since":0,"reason":""}' "$comma" "$name"
        comma=,
    done
    printf ']'
}

# status_service DIR NAME: one service, as s6 tells. One that announces no readiness is ready when it is up.
status_service() {
    local up wanted ready reason
    # shellcheck disable=SC2046 # five words
    set -- "$1" "$2" $(s6-svstat -o up,wantedup,ready,pid,updownfor "$1" 2>/dev/null || echo false true false -1 0)
    up=$3 wanted=$4 ready=$5
    [ -f "$1/notification-fd" ] || ready=$up
    reason=
    if [ "$up" = false ] && [ -f "$1/reason" ]; then reason=$(tr -cd 'A-Za-z0-9 ._/:@=+,()-' <"$1/reason"); fi
    printf '{"name":"%s","up":%s,"ready":%s,"pid":%s,"wanted_up":%s,"since":%s,"reason":"%s"}' \
        "$2" "$up" "$ready" "$6" "$wanted" "$(($(date +%s) - $7))" "$reason"
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
