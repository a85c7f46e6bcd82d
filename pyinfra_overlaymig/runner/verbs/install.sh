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
    rubbish=$incoming
    rm -rf -- "$incoming"
    mkdir -p "$incoming"
    id=$(local_id "install_$1")
    {
        printf '#!/bin/sh\nset -eu\napt-get update\napt-get install -y --no-install-recommends'
        printf ' %s' "$@"
        printf '\n'
    } >"$incoming/install.sh"
    local_plan "$id" "$incoming/install.sh" 'state-auto yes' >"$incoming/plan"
    printf 'timeout 1800\n' >"$incoming/limits"
    say "this is migration $id"
    bundle_apply "$incoming"
}
