# install PACKAGE…: a migration made on the spot, numbered for today, that installs Debian packages; and its apply.
# shellcheck shell=dash

verb_install() {
    local package id
    [ "$#" -gt 0 ] || die 100 'install takes package names' 'system-migrate install postgresql'
    for package; do
        case $package in
        -* | *[!a-z0-9.+:=~-]*) die 4 "'$package' is not a package name" 'lower case letters, digits, + - . only' ;;
        esac
    done
    layout
    incoming=$SYS/staging/.incoming.$$
    trap 'rm -rf -- "$incoming"' EXIT
    rm -rf -- "$incoming"
    mkdir -p "$incoming"
    id=$(install_id "$1")
    {
        printf '#!/bin/sh\nset -eu\napt-get update\napt-get install -y --no-install-recommends'
        printf ' %s' "$@"
        printf '\n'
    } >"$incoming/install.sh"
    {
        printf 'format %s\nid %s\nstate-auto yes\nlocal yes\nmember 0755 ' "$FORMAT" "$id"
        sha256sum <"$incoming/install.sh" | sed 's/ .*/ install.sh/'
    } >"$incoming/plan"
    printf 'timeout 1800\n' >"$incoming/limits"
    say "this is migration $id"
    bundle_apply "$incoming"
}

# install_id PACKAGE: the next free id of today, or of the newest migration's day if that is later.
install_id() {
    local last day number label
    # The order of the others does not count it, but no two may have one number.
    last=$(generation_stack "$(generation_current)" | sort | tail -n 1)
    day=$(date -u +%Y%m%d)
    number=0
    if [ -n "$last" ] && [ "${last%%-*}" -ge "$day" ]; then
        day=${last%%-*}
        number=${last#*-}
        number=${number%%_*}
        # 008 would be read as octal
        while [ "${number#0}" != "$number" ]; do number=${number#0}; done
    fi
    label=$(printf '%s' "$1" | tr -c 'a-z0-9' _ | cut -c1-40)
    printf '%s-%03d_install_%s\n' "$day" "$((${number:-0} + 1))" "${label%_}"
}
