# Compares what an overlay's upper directory holds with the stack below it: what is new, changed, deleted, and what was
# only copied up. Used on a stage (its changes) and on the running root's upper (drift).
# shellcheck shell=dash
#
# Every list has one entry a line, the path first, bytes that would break a line escaped as \ooo, tabs between.

# Paths under these are nobody's system: other mounts, caches (apt's package lists too, which are stale tomorrow),
# logs of the installation itself.
NOWHERE='data dev proc run sys tmp var/tmp var/cache/apt/archives var/cache/apt/pkgcache.bin
var/cache/apt/srcpkgcache.bin var/cache/ldconfig var/lib/apt/lists var/log/apt var/log/dpkg.log var/log/alternatives.log'

# tree_lines: NUL-separated paths in, one escaped a line out.
tree_lines() {
    sed -z 's/\\/\\134/g; s/\n/\\012/g; s/ /\\040/g; s/\t/\\011/g' | tr '\0' '\n'
}

# tree_records: NUL-separated records (path, link target, attributes) in; one line for each three out.
tree_records() {
    local escape
    escape='s/\\/\\134/g; s/\n/\\012/g; s/ /\\040/g; s/\t/\\011/g'
    sed -z "$escape; n; $escape; n" | tr '\0' '\n' | paste - - - | sed 's,^\./,,'
}

# tree_entries: for NUL-separated ./paths, those that exist below the current directory.
tree_entries() {
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    xargs -0 -r sh -c 'find "$@" -maxdepth 0 -printf "%p\0%l\0%y %m %U %G %s %T@ %n %i\0" 2>/dev/null || :' sh |
        tree_records | sort -t "$(printf '\t')" -k 1,1
}

# tree_attributes: for NUL-separated ./paths, their extended attributes; an opaque directory has the word `opaque`.
tree_attributes() {
    { xargs -0 -r getfattr -P -h -d -m - -e hex -- 2>/dev/null || :; } | awk '
        /^# file: / { path = substr($0, 9); gsub(/ /, "\\040", path); gsub(/\t/, "\\011", path); all = ""; next }
        /^trusted\.overlay\.opaque=0x79/ { all = all " opaque"; next }
        /^trusted\.overlay\./ { next }
        /^$/ { if (all != "") print path "\t" all; next }
        { all = all " " $0 }'
}

# tree_hashes: for NUL-separated ./paths of regular files, their SHA-256.
tree_hashes() {
    xargs -0 -r sha256sum -z -- | sed -z 's/\\/\\134/g; s/\n/\\012/g; s/\t/\\011/g' | tr '\0' '\n' | awk '
        { path = substr($0, 69); gsub(/ /, "\\040", path); print path "\t" substr($0, 1, 64) }'
}

# tree_paths: lines that begin with an escaped path in; NUL-separated ./paths out.
tree_paths() {
    awk -F '\t' '{
        path = $1
        gsub(/\\012/, "\n", path); gsub(/\\040/, " ", path); gsub(/\\011/, "\t", path); gsub(/\\134/, "\\", path)
        printf "./%s%c", path, 0
    }'
}

# compare UPPER LOWER DIR: for the NUL-separated ./paths in DIR/paths, writes DIR/changes (as FORMAT.md describes
# changes.list), DIR/times (those of them where nothing else changed), DIR/unchanged (files) and DIR/unchanged.dirs.
compare() {
    cd "$1" || return
    tree_entries <"$3/paths" >"$3/upper"
    tree_attributes <"$3/paths" >"$3/upper.attributes"
    awk -F '\t' '$3 ~ /^f/' "$3/upper" | tree_paths | tree_hashes >"$3/upper.hashes"
    awk -F '\t' '$3 ~ /^c/' "$3/upper" | tree_paths | xargs -0 -r stat --printf '%t:%T %n\0' -- |
        sed -zn 's/^0:0 //p' | sed -z 's/$/\x00\x00/' | tree_records >"$3/whiteouts"
    cd "$2" || return
    tree_entries <"$3/paths" >"$3/lower"
    tree_attributes <"$3/paths" >"$3/lower.attributes"
    awk -F '\t' '
        part == 1 { split($3, was, " "); type[$1] = was[1]; size[$1] = was[5]; next }
        { split($3, is, " ") }
        is[1] == "f" && type[$1] == "f" && size[$1] == is[5]' part=1 "$3/lower" part=2 "$3/upper" |
        tree_paths | tree_hashes >"$3/lower.hashes"
    : >"$3/changes"
    : >"$3/times"
    : >"$3/unchanged"
    : >"$3/unchanged.dirs"
    compare_lists "$3"
}

# compare_lists DIR: the decision, from the lists that compare made. Parents sort before what they hold; `fresh` is a
# directory that shows nothing of the stack below it.
compare_lists() {
    awk -F '\t' -v list="$1/changes" -v times="$1/times" -v unchanged="$1/unchanged" -v carriers="$1/unchanged.dirs" '
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
        is[1] == "d" { if (same_owner) print $1 >carriers; else record("M"); next }
        is[1] == "l" && $2 != old_link[$1] { record("C"); next }
        is[1] == "f" && (is[5] != was[5] || hash[$1] != old_hash[$1]) { record("C"); next }
        !same_owner { record("M"); next }
        is[6] != was[6] { print $1 >times; record("M"); next }
        { print $1 >unchanged }
    ' part=1 "$1/whiteouts" part=2 "$1/upper.attributes" part=3 "$1/upper.hashes" \
        part=4 "$1/lower.attributes" part=5 "$1/lower.hashes" part=6 "$1/lower" part=7 "$1/upper"
}
