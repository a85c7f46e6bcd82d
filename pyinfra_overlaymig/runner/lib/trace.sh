# Reads what audit recorded of a session, and explains with it what a migration changed.
# shellcheck shell=dash

# audit_read DIR: DIR/session and DIR/records in; DIR/../audit.gz, DIR/processes and DIR/events out.
#   processes   number, parent's number, pid, program, arguments; a new number for each program that a pid becomes
#   events      serial, class, process, C L D or N (made, linked, gone, opened or described), device, inode, inode of its directory,
#               name there, path as the process gave it (empty where it was relative to an open directory), d for directories, r
#               where it was relative to anything
# One pass; the records of one event may be mixed with others', and are complete when all its PATHs have come.
audit_read() {
    local line
    line "$1/session"
    : >"$1/processes"
    : >"$1/events"
    awk -v session="$line" -v processes="$1/processes" -v events="$1/events" -v places="$1/places" -v trace="gzip -1 >'${1%/*}/audit.gz'" '
        BEGIN {
            for (i = 0; i < 256; i++) byte[sprintf("%02X", i)] = sprintf("%c", i)
            byte["09"] = "\\011"; byte["0A"] = "\\012"; byte["20"] = "\\040"; byte["5C"] = "\\134"; byte["00"] = "\\000"
            while ((getline line <places) > 0) { split(line, field, " "); watched[field[1]] }
        }
        # What stands after the first `=`: quoted, or in hex, or in brackets where there is nothing.
        function value(word,    text, i) {
            word = substr(word, index(word, "=") + 1)
            if (substr(word, 1, 1) == "\"") {
                text = substr(word, 2, length(word) - 2)
                if (index(text, "\\")) gsub(/\\/, "\\134", text)
                return text
            }
            if (word ~ /^\(/) return ""
            for (i = 1; i < length(word); i += 2) text = text byte[substr(word, i, 2)]
            return text
        }
        function plain(word) { return substr(word, index(word, "=") + 1) }
        function trimmed(path) { if (substr(path, length(path)) == "/") sub(/\/+$/, "", path); return path }
        # The process that pid is now. A pid may have been given out again: then it has another parent.
        function process(pid, ppid, program) {
            if ((pid in now) && (names[now[pid]] == program || same(names[now[pid]], program))) {
                if (ppid == parent_pid[now[pid]] || ppid == reaper || !(ppid in now)) return now[pid]
            }
            return begin(pid, ppid, ppid in now ? now[ppid] : 0, program, "")
        }
        # A program is called otherwise once its process is in another root: as the end, or with more before it.
        function bare(text) { sub(/(\\040| )\(deleted\)$/, "", text); return text }
        function same(a, b) { a = bare(a); b = bare(b); return a == b || ends(a, b) || ends(b, a) }
        function ends(long, short) { return length(long) > length(short) && substr(long, length(long) - length(short) + 1) == short }
        function begin(pid, ppid, above, program, words,    n, i, child) {
            if (words == "" && above && names[above] == program) words = arguments[above]
            parent_pid[++count] = ppid; names[count] = program; arguments[count] = words
            own_pid[count] = pid; parent[count] = above
            if (!above) waiting[ppid] = waiting[ppid] " " count
            # The record of a vfork comes when the child has become another program, which is after the first of the child.
            if (pid in waiting) {
                n = split(waiting[pid], child, " ")
                for (i = 1; i <= n; i++) if (child[i] != count) parent[child[i]] = count
                delete waiting[pid]
            }
            return now[pid] = count
        }
        function base(path) {
            path = trimmed(path)
            return substr(path, match(path, /[^\/]*$/))
        }
        function flush_event(s,    n, i, j, item, up, ups, parents, text, above) {
            n = s in items_of ? split(items_of[s], item, "\n") : 0
            ups = s in parents_of ? split(parents_of[s], parents, "\n") : 0
            # Only a link names one thing that is there and one that it makes; it changes nothing in the first.
            link = n > 1 && items_of[s] ~ /(^|\n)N/ && items_of[s] ~ /(^|\n)C/
            for (i = 1; i <= n; i++) {
                if (link && item[i] ~ /^N/) continue
                # kind device inode directory name
                split(item[i], part, "\t")
                text = part[5]
                above = ""
                if (!ups && !(part[2] in watched)) continue
                if (ups) {
                    # Two directories belong to a rename: the one that the name begins with. Where it tells nothing, the
                    # new one comes first, as the kernel reads the arguments from the last one on.
                    up = part[1] == "D" ? ups : 1
                    for (j = 1; j <= ups && ups > 1; j++) {
                        split(parents[j], mother, "\t")
                        if (mother[2] "/" base(text) == text) { up = j; break }
                    }
                    split(parents[up], mother, "\t")
                    above = mother[1]
                    # Overlayfs repeats a change in its upper directory, and the kernel may note that one for the name.
                    part[2] = mother[3]
                }
                relative = substr(text, 1, 1) == "/" ? "" : "r"
                # Without a CWD (audit_terse) the inode of the directory has to do.
                if (relative) text = text == "" || (s in by_handle) || !(s in where) ? "" : where[s] (where[s] == "/" ? "" : "/") text
                print s "\t" by[s] "\t" (link ? "L" : part[1]) "\t" part[2] "\t" part[3] "\t" above "\t" base(part[5]) "\t" text "\t" part[4] "\t" relative >events
            }
        }
        function call_of(s,    word) {
            split(calling[s], word, " ")
            ppid = word[1]; pid = word[2]
            program = substr(calling[s], length(ppid " " pid " ") + 1)
        }
        $1 ~ /^node=/ { sub(/^node=[^ ]* /, "") }
        # As text: mawk writes large numbers with an exponent.
        { s = substr($2, index($2, ":") + 1); s = substr(s, 1, length(s) - 2) }
        $1 == "type=SYSCALL" {
            i = $5 ~ /^success=/ ? 11 : $6 ~ /^success=/ ? 12 : 9
            if ($(i + 13) != "ses=" session) next
            print | trace
            ours[s]
            seen++
            ppid = plain($(i + 1)); pid = plain($(i + 2)); program = value($(i + 15))
            items = plain($i) + 0
            kind = substr($0, index($0, "key=\"overlaymig-") + 16, 1)
            # An EXECVE follows; or it may, where a rule of others came first.
            if (items && kind != "c" && kind != "m") calling[s] = ppid " " pid " " program
            else doer = process(pid, ppid, program)
            # A program that is started was only read: its PATHs tell nothing.
            if (!items || kind == "p") next
            left[s] = items
            if (!(s in calling)) by[s] = (kind == "m" ? "m" : "w") "\t" doer
            # A first argument this small is an open directory, not AT_FDCWD and no pointer.
            if (length(plain($(i - 4))) <= 3) by_handle[s]
            next
        }
        $1 == "type=LOGIN" && ($0 ~ (" ses=" session " ") || $0 ~ ("old-ses=" session " ")) { print | trace; next }
        !(s in ours) { next }
        { print | trace }
        $1 == "type=EXECVE" {
            # A long list of arguments is more than one record.
            if (!(s in calling)) next
            call_of(s)
            words = ""
            for (i = 4; i <= NF && length(words) < 400; i++) if ($i ~ /^a[0-9]+(\[[0-9]+\])?=/) words = words (words == "" ? "" : " ") value($i)
            if (words ~ /\/stage\/init\.sh /) reaper = pid
            # What it was before is not its parent: a shell that has forked to run it.
            above = pid in now && (parent_pid[now[pid]] == ppid || ppid == reaper) ? now[pid] : ppid in now ? now[ppid] : 0
            begin(pid, ppid, above, program, words)
            delete calling[s]; delete left[s]; delete by_handle[s]
            next
        }
        $1 == "type=CWD" && (s in left) { where[s] = value($3); next }
        $1 == "type=PATH" && (s in left) {
            if (s in calling) { call_of(s); by[s] = "w\t" process(pid, ppid, program); delete calling[s] }
            device = substr($6, 5)
            # Those of an upper directory have no name.
            if ($4 != "name=(null)" || (device in watched)) {
                kind = plain($11 ~ /^nametype=/ ? $11 : $12)
                text = value($4)
                if (kind == "PARENT") {
                    if ((device in watched) && text != "")
                        parents_of[s] = parents_of[s] (parents_of[s] == "" ? "" : "\n") plain($5) "\t" trimmed(text) "\t" device
                } else if (kind == "NORMAL" ? device in watched : (kind == "CREATE" || kind == "DELETE") && text != "")
                    items_of[s] = items_of[s] (items_of[s] == "" ? "" : "\n") substr(kind, 1, 1) "\t" device "\t" plain($5) "\t" ($7 ~ /=04[0-7][0-7][0-7][0-7]$/ ? "d" : "") "\t" text
            }
            if (--left[s]) next
            flush_event(s)
            # Arrays that grow with the trace take more time than all the rest.
            delete items_of[s]; delete parents_of[s]; delete left[s]; delete where[s]; delete by[s]; delete by_handle[s]
            next
        }
        END {
            for (i = 1; i <= count; i++) print i "\t" parent[i] "\t" own_pid[i] "\t" names[i] "\t" arguments[i] >processes
            print seen + 0 >(processes ".count"); close(trace)
        }' "$1/records"
}

# audit_places DIR ROOT [PATH-FILE]: notes the devices of ROOT and of the state paths (escaped, one a line) below it.
audit_places() {
    local path
    {
        printf '%s /\n' "$(audit_device "$2")"
        [ -z "${3-}" ] || while read -r path; do
            unescape "$path"
            state_place "$2" "$unescaped"
            printf '%s %s\n' "$(audit_device "$contents")" "$path"
        done <"$3"
    } >"$1/places"
}

# audit_device PATH: its device as audit writes it, to standard output.
audit_device() {
    local device
    device=$(stat -c %d -- "$1")
    printf '%02x:%02x\n' "$((device >> 8 & 0xfff))" "$((device & 0xff | device >> 12 & 0xfff00))"
}

# audit_inodes DIR UPPER ROOT PREFIX: notes device, inode and path of what UPPER holds, as ROOT shows it; PREFIX is where
# ROOT is, without its leading slash. An overlay may tell stat(2) another device for its files; audit knows but one.
audit_inodes() {
    (cd "$2" && find . -print0) | (cd "$3" && xargs -0 -r stat --printf '%i %f\0%n\0' -- 2>/dev/null) |
        sed -z 'n; s/\\/\\134/g; s/\n/\\012/g; s/ /\\040/g; s/\t/\\011/g' | tr '\0' '\n' | paste - - |
        awk -F '\t' -v prefix="$4" -v device="$(audit_device "$3")" '{
            path = substr($2, 3)
            split($1, word, " ")
            # An overlay may number directories by itself: a file can have the same number.
            kind = word[2] ~ /^4...$/ ? "d" : "f"
            print device "\t" word[1] " " kind "\t" prefix (prefix != "" && path != "" ? "/" : "") path
        }' >>"$1/inodes"
}

# audit_handles DIR ROOT: notes those directories and files of the places in DIR/places below ROOT that are known by their
# number alone: what was reached through an open directory. Where the root is an overlay, its upper is noted already.
audit_handles() {
    local device place overlay
    overlay=
    [ ! -d "$SYS/upper/$(upper_live)/upper" ] || overlay=/
    awk -F '\t' '$11 == "r" {
        print $5 " " $6 " " ($10 == "d" ? "d" : "f")
        if ($7 != "") print $5 " " $7 " d"
    }' "$1/events" | sort -u >"$1/handles"
    while read -r device place; do
        if [ "$place" = "$overlay" ] || ! grep -q "^$device " "$1/handles"; then continue; fi
        unescape "$place"
        # One file can be a mount, too.
        [ -d "$2$unescaped" ] || continue
        # What is made and removed meanwhile is not looked for.
        (cd "$2$unescaped" && { find . -xdev -printf '%i %y\0%p\0' 2>/dev/null || :; }) |
            sed -z 'n; s/\\/\\134/g; s/\n/\\012/g; s/ /\\040/g; s/\t/\\011/g' | tr '\0' '\n' | paste - - |
            awk -F '\t' -v prefix="${place#/}" -v device="$device" '
                part == 1 { wanted[$0]; next }
                {
                    split($1, word, " ")
                    key = word[1] " " (word[2] == "d" ? "d" : "f")
                    path = substr($2, 3)
                    if ((device " " key) in wanted) print device "\t" key "\t" prefix (prefix != "" && path != "" ? "/" : "") path
                }' part=1 "$1/handles" part=2 - >>"$1/inodes"
    done <"$1/places"
}

# audit_packages DIR ROOT…: which package each path belongs to, as dpkg in ROOT knows; a later ROOT is right.
audit_packages() {
    local directory root
    directory=$1
    shift
    for root; do
        [ -d "$root/var/lib/dpkg/info" ] || continue
        # shellcheck disable=SC2016 # $0 is for awk
        find "$root/var/lib/dpkg/info" -name '*.list' -type f -print0 | sort -z | xargs -0 -r awk '
            FNR == 1 {
                name = FILENAME
                sub(/.*\//, "", name); sub(/(:[^:]*)?\.list$/, "", name)
            }
            { gsub(/\\/, "\\134"); gsub(/ /, "\\040"); gsub(/\t/, "\\011"); print substr($0, 2) "\t" name }'
    done >"$directory/packages"
}

# audit_resolve DIR: DIR/events with each path as it is called in the end; DIR/resolved out: serial, class, process, kind,
# device and inode, path, d for directories. The inode of its directory tells where a name lies, whatever the process
# called that directory; what it called it counts only where the directory is gone, or was never in an upper.
audit_resolve() {
    touch "$1/inodes"
    awk -F '\t' -v root="${1%/*}/root/" -v merged="$(readlink /lib)" '
        function canonical(path,    part, n, i, kept, depth) {
            if (index(path, root) == 1) path = substr(path, length(root))
            n = split(path, part, "/")
            depth = 0
            for (i = 1; i <= n; i++) {
                if (part[i] == "" || part[i] == ".") continue
                if (part[i] == "..") { if (depth) depth--; continue }
                kept[++depth] = part[i]
            }
            path = ""
            for (i = 1; i <= depth; i++) path = path (i > 1 ? "/" : "") kept[i]
            if (merged ~ /usr\/lib$/ && path ~ /^(bin|sbin|lib|lib32|lib64|libx32)\//) path = "usr/" path
            return path
        }
        part == 1 { name[$1 " " $2] = $3; next }
        {
            key = $5 " " $6 " " ($10 == "d" ? "d" : "f"); mother = $5 " " $7 " d"
            if ($4 == "N" && key in name) path = name[key]
            else if ($7 != "" && mother in name) path = name[mother] (name[mother] == "" ? "" : "/") $8
            else if ($7 != "" && mother in learned) path = learned[mother] "/" $8
            else path = $9 == "" ? "" : canonical($9)
            if ($4 == "C" && $10 == "d") learned[key] = path
            if (path != "") print $1 "\t" $2 "\t" $3 "\t" $4 "\t" key "\t" path "\t" $10
        }
    ' part=1 "$1/inodes" part=2 "$1/events" >"$1/resolved"
}

# audit_explain DIR CHANGES TIMES UNCHANGED… : joins what was changed with the processes that did it; DIR/who out, as FORMAT.md
# describes who.list, and the number of what is unexplained in DIR/unexplained.
audit_explain() {
    local directory changes times TMPDIR
    directory=$1 changes=$2 times=$3
    TMPDIR=$directory
    shift 3
    : >"$directory/who.lines"
    : >"$directory/who.others"
    : >"$directory/who.processes"
    awk -F '\t' -v nowhere="$NOWHERE" -v merged="$(readlink /lib)" -v kept="${directory%/*}/state/paths" '
        BEGIN {
            left_out_count = split(nowhere, left_out, /[ \n]+/)
            # Also those that became state only when the script had made them.
            while ((getline line <kept) > 0) kept_path[++kept_count] = substr(line, 2)
        }
        function newest(a, b) { return a + 0 >= b + 0 ? a : b }
        # What an inode saw before its file went is another file of that number.
        function since(a, key) { return a + 0 > gone[key] + 0 ? a : 0 }
        function above(path) { return sub("/[^/]*$", "", path) ? path : "" }
        function use(n) { while (n && !(n in used)) { used[n]; n = up[n] } }
        function below(path, tops, count,    i) {
            for (i = 1; i <= count; i++) if (path == tops[i] || index(path, tops[i] "/") == 1) return 1
            return 0
        }
        part == 1 { path = $1; if (merged ~ /usr\/lib$/ && path ~ /^(bin|sbin|lib|lib32|lib64|libx32)\//) path = "usr/" path; package[path] = $2; next }
        part == 2 { split($1, field, " "); if (field[2] != "/") state[field[1]]; next }
        part == 3 { inode[$3] = $1 " " $2; next }
        part == 4 { up[$1] = $2; program[$1] = $0; next }
        part == 5 { same[$1]; next }
        part == 6 { only_times[$1]; next }
        part == 7 {
            by[$1] = $3; path = $6; key = $5
            if ($2 == "m") { metadata[path] = $1; metadata_of[key] = $1; next }
            if ($4 != "D") { if (gone[key] == $1) delete gone[key] }
            else {
                # A rename is a deletion, too.
                if (content_of[key] != $1) gone[key] = $1
                delete metadata[path]
            }
            if ($4 ~ /[CN]/) content_of[key] = $1
            content[path] = $1; kind[path] = $4; device[path] = substr(key, 1, index(key, " ") - 1)
            if ($4 ~ /[CL]/) made[path]
            next
        }
        {
            split($0, word, " ")
            op = word[1]; path = word[9]; key = inode[path]
            changed[path]
            last = 0
            if (op == "D") { if (kind[path] == "D") last = content[path] }
            else last = newest(kind[path] == "D" ? 0 : content[path], since(content_of[key], key))
            if (op == "M" || !last) last = newest(last, newest(metadata[path], since(metadata_of[key], key)))
            if (!last) {
                print "unexplained change " (word[10] == "==" ? "hard-link" : path in only_times ? "times" : op == "M" ? "by-handle" : "unknown") " " path >lines
                unexplained++
                next
            }
            use(by[last])
            print "path " by[last] " " (path in package ? package[path] : "-") " " path >lines
        }
        END {
            for (path in content) {
                # The runner makes this one for the run.
                if (path in changed || path == "usr/sbin/policy-rc.d" || path ~ /^data\/system\//) continue
                n = by[content[path]]
                what = ""
                if (device[path] in state || below(path, kept_path, kept_count)) what = "state"
                else if (path in same) what = "unchanged"
                else if (kind[path] == "D" && path in made) what = "transient"
                else if (below(path, left_out, left_out_count)) what = "left-out"
                else if (kind[path] == "D") continue
                else for (over = above(path); over != "" && what == ""; over = above(over)) if (kind[over] == "D") what = "transient"
                if (what == "") {
                    print "unexplained record " (kind[path] == "N" ? "opened" : "made") " " path >others
                    unexplained++
                } else { use(n); print "also " what " " n " " path >others }
            }
            for (n in used) {
                split(program[n], field, "\t")
                print "process " field[1] " " field[2] " " field[3] " " (field[4] == "" ? "-" : field[4]) (field[5] == "" ? "" : " " field[5]) >processes
            }
            print unexplained + 0 >counted
        }
    ' lines="$directory/who.lines" others="$directory/who.others" processes="$directory/who.processes" counted="$directory/unexplained" \
        part=1 "$directory/packages" part=2 "$directory/places" part=3 "$directory/inodes" part=4 "$directory/processes" \
        part=5 "$@" part=6 "$times" part=7 "$directory/resolved" FS=' ' part=8 "$changes"
    {
        sort -k 2n "$directory/who.processes"
        cat "$directory/who.lines"
        sort -k 4 "$directory/who.others"
    } >"$directory/who"
}

# audit_changes DIR ROOT: what a session changed below ROOT, where no upper directory tells it; as changes.list, without
# content, to standard output. What was described or opened counts as changed.
audit_changes() {
    awk -F '\t' '
        $6 ~ /^data\/system\// { next }
        $2 == "m" { if (!($6 in kind)) kind[$6] = "M"; next }
        # What takes the place of something that was there is a change of it.
        $4 ~ /[CL]/ { kind[$6] = kind[$6] == "C" || kind[$6] == "D" ? "C" : "A"; next }
        $4 == "D" { kind[$6] = kind[$6] == "A" ? "-" : "D"; next }
        kind[$6] != "A" { kind[$6] = "C" }
        END { for (path in kind) if (kind[path] != "-") print path "\t" kind[path] }' "$1/resolved" | sort >"$1/touched"
    tree_paths <"$1/touched" | (cd "$2" && tree_entries) >"$1/found"
    awk -F '\t' '
            part == 1 { is[$1] = $3; link[$1] = $2; next }
            {
                if (!($1 in is)) { if ($2 == "D") print "D - - - - - - -", $1; next }
                split(is[$1], word, " ")
                print $2 == "D" ? "C" : $2, word[1], word[2], word[3], word[4], word[1] == "f" ? word[5] : 0, "-", "-", $1 (word[1] == "l" ? " -> " link[$1] : "")
            }' part=1 "$1/found" part=2 "$1/touched"
}
