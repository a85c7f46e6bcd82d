#!/bin/sh
# Reads from a finished stage what its script changed: writes changes.list, and takes out of the upper directory what
# is no change (files copied up and left as they were) and what belongs to no layer (caches, temporary files).
# usage: capture.sh RUNNER-DIRECTORY ID             (in the base view, in a mount namespace of its own)
#
# Every list below has one entry a line, the path first, bytes that would break a line escaped as \ooo, tabs between.
set -eu

HERE=$1 id=$2
for part in "$HERE"/lib/*.sh; do
    # shellcheck source=/dev/null
    . "$part"
done
stage=$SYS/staging/$id
upper=$stage/upper
lists=$stage/lists

# Paths under these are nobody's system: other mounts, caches (apt's package lists too, which are stale tomorrow),
# logs of the installation itself.
NOWHERE='data dev proc run sys tmp var/tmp var/cache/apt/archives var/cache/apt/pkgcache.bin
var/cache/apt/srcpkgcache.bin var/cache/ldconfig var/lib/apt/lists var/log/apt var/log/dpkg.log var/log/alternatives.log'

# escaped_records: NUL-separated records (path, link target, attributes) in; one line for each three out.
escaped_records() {
    escape='s/\\/\\134/g; s/\n/\\012/g; s/ /\\040/g; s/\t/\\011/g'
    sed -z "$escape; n; $escape; n" | tr '\0' '\n' | paste - - - | sed 's,^\./,,'
}

# entries: for NUL-separated ./paths, those that exist below the current directory.
entries() {
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    xargs -0 -r sh -c 'find "$@" -maxdepth 0 -printf "%p\0%l\0%y %m %U %G %s %T@ %n %i\0" 2>/dev/null || :' sh |
        escaped_records | sort -t "$(printf '\t')" -k 1,1
}

# attributes: for NUL-separated ./paths, their extended attributes; an opaque directory has the word `opaque`.
attributes() {
    { xargs -0 -r getfattr -P -h -d -m - -e hex -- 2>/dev/null || :; } | awk '
        /^# file: / { path = substr($0, 9); gsub(/ /, "\\040", path); gsub(/\t/, "\\011", path); all = ""; next }
        /^trusted\.overlay\.opaque=0x79/ { all = all " opaque"; next }
        /^trusted\.overlay\./ { next }
        /^$/ { if (all != "") print path "\t" all; next }
        { all = all " " $0 }'
}

# hashes: for NUL-separated ./paths of regular files, their SHA-256.
hashes() {
    xargs -0 -r sha256sum -z -- | sed -z 's/\\/\\134/g; s/\n/\\012/g; s/\t/\\011/g' | tr '\0' '\n' | awk '
        { path = substr($0, 69); gsub(/ /, "\\040", path); print path "\t" substr($0, 1, 64) }'
}

# nul_paths: lines that begin with an escaped path in; NUL-separated ./paths out.
nul_paths() {
    awk -F '\t' '{
        path = $1
        gsub(/\\012/, "\n", path); gsub(/\\040/, " ", path); gsub(/\\011/, "\t", path); gsub(/\\134/, "\\", path)
        printf "./%s%c", path, 0
    }'
}

# state_found: directories that the script made in /var/lib and gave to an account of their own are state, for a
# migration that says `state-auto` because nobody wrote it a manifest.
state_found() {
    plan_values state-auto "$stage/plan" | grep -q yes || return 0
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

mkdir -p "$lists" "$stage/lower"
stack_mount_lower "$stage/links" "$stage/lower"
lower=$stage/lower

for path in $NOWHERE; do rm -rf -- "${upper:?}/$path"; done
state_found

cd "$upper"
find . -mindepth 1 -print0 >"$lists/paths"
entries <"$lists/paths" >"$lists/upper"
attributes <"$lists/paths" >"$lists/upper.attributes"
find . -type f -print0 | hashes >"$lists/upper.hashes"
find . -type c -print0 | xargs -0 -r stat --printf '%t:%T %n\0' | sed -zn 's/^0:0 //p' | sed -z 's/$/\x00\x00/' |
    escaped_records >"$lists/whiteouts"
cd "$lower"
entries <"$lists/paths" >"$lists/lower"
attributes <"$lists/paths" >"$lists/lower.attributes"
awk -F '\t' '
    part == 1 { split($3, was, " "); type[$1] = was[1]; size[$1] = was[5]; next }
    { split($3, is, " ") }
    is[1] == "f" && type[$1] == "f" && size[$1] == is[5]' part=1 "$lists/lower" part=2 "$lists/upper" |
    nul_paths | hashes >"$lists/lower.hashes"

# Parents sort before what they hold. `fresh`: a directory that shows nothing of the stack below it.
awk -F '\t' -v list="$stage/changes.list" -v unchanged="$lists/unchanged" -v empty="$lists/unchanged.dirs" '
    part == 1 { whiteout[$1]; next }
    part == 2 { attributes[$1] = $2; next }
    part == 3 { hash[$1] = $2; next }
    part == 4 { old_attributes[$1] = $2; next }
    part == 5 { old_hash[$1] = $2; next }
    part == 6 { old[$1] = $3; old_link[$1] = $2; next }
    function parent(path) { return sub("/[^/]*$", "", path) ? path : "" }
    function record(op,    note, extra) {
        extra = substr(attributes[$1], 2)
        gsub(/ /, ",", extra)
        if (is[1] == "l") note = " -> " $2
        else if (is[1] == "f" && is[7] > 1) {
            if (is[8] in first) note = " == " first[is[8]]; else first[is[8]] = $1
        }
        print op, is[1], is[2], is[3], is[4], is[1] == "f" ? is[5] : 0, is[1] == "f" ? hash[$1] : "-",
            extra == "" ? "-" : extra, $1 note >list
    }
    {
        split($3, is, " ")
        above = parent($1)
        hidden = !($1 in old) || (above in fresh)
        opaque = sub(/ opaque/, "", attributes[$1])
    }
    $1 in whiteout { if (hidden) print $1 >unchanged; else print "D - - - - - - -", $1 >list; next }
    hidden { if (is[1] == "d") fresh[$1]; record("A"); next }
    {
        split(old[$1], was, " ")
        same_owner = is[2] == was[2] && is[3] == was[3] && is[4] == was[4] && attributes[$1] == old_attributes[$1]
    }
    is[1] != was[1] || opaque { if (is[1] == "d") fresh[$1]; record("C"); next }
    is[1] == "d" { if (same_owner) print $1 >empty; else record("M"); next }
    is[1] == "l" && $2 != old_link[$1] { record("C"); next }
    is[1] == "f" && (is[5] != was[5] || hash[$1] != old_hash[$1]) { record("C"); next }
    !same_owner || is[6] != was[6] { record("M"); next }
    { print $1 >unchanged }
' part=1 "$lists/whiteouts" part=2 "$lists/upper.attributes" part=3 "$lists/upper.hashes" \
    part=4 "$lists/lower.attributes" part=5 "$lists/lower.hashes" part=6 "$lists/lower" part=7 "$lists/upper"

cd "$upper"
if [ -f "$lists/unchanged" ]; then nul_paths <"$lists/unchanged" | xargs -0 rm -f --; fi
if [ -f "$lists/unchanged.dirs" ]; then
    sort -r "$lists/unchanged.dirs" | nul_paths | xargs -0 rmdir --ignore-fail-on-non-empty --
fi
: >>"$stage/changes.list"
