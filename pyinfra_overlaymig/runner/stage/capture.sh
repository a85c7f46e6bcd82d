#!/bin/sh
# Reads from a finished stage what its script changed: writes changes.list, and takes out of the upper directory what
# is no change (files copied up and left as they were) and what belongs to no layer (caches, temporary files).
# usage: capture.sh RUNNER-DIRECTORY ID             (in the base view, in a mount namespace of its own)
set -eu

HERE=$1 id=$2
for part in "$HERE"/lib/*.sh; do
    # shellcheck source=/dev/null
    . "$part"
done
stage=$SYS/staging/$id
upper=$stage/upper
lower=$stage/lower
lists=$stage/lists

# state_found: directories that the script made in /var/lib and gave to an account of their own are state, for a
# migration that says `state-auto` because nobody wrote it a manifest.
state_found() {
    plan_says state-auto "$stage/plan" || return 0
    [ -d "$upper/var/lib" ] || return 0
    number=$(wc -l <"$stage/state/paths")
    find "$upper/var/lib" -mindepth 1 -maxdepth 1 -type d ! -uid 0 -name '[a-z]*' -printf '%f\n' | sort |
        while read -r name; do
            case $name in *[!A-Za-z0-9._-]*) continue ;; esac
            [ ! -e "$lower/var/lib/$name" ] || continue
            number=$((number + 1))
            mkdir "$stage/state/$number"
            mv -T -- "$upper/var/lib/$name" "$stage/state/$number/tree"
            mkdir "$upper/var/lib/$name"
            printf '/var/lib/%s\n' "$name" >>"$stage/state/paths"
        done
}

mkdir -p "$lists" "$lower"
TMPDIR=$lists
stack_mount_lower "$RUN/stack" "$lower" "$(generation_current)"
# shellcheck disable=SC2086 # one word for each path
(cd "$upper" && rm -rf -- $NOWHERE)
state_found

(cd "$upper" && find . -mindepth 1 -print0) >"$lists/paths"
compare "$upper" "$lower" "$lists"
audit_packages "$stage/audit" "$lower" "$upper"
cd "$upper"
tree_paths <"$lists/unchanged" | xargs -0 -r rm -f --
sort -r "$lists/unchanged.dirs" | tree_paths | xargs -0 -r rmdir --ignore-fail-on-non-empty --
mv -f "$lists/changes" "$stage/changes.list"
