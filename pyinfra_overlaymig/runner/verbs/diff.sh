# diff ID: what a migration, or a command that ran under `capture`, changed, and who: by package and directory, for people.
# diff --raw ID: the same from the records, line by line, for programs. Without a lock: records are never changed.
# shellcheck shell=dash

verb_diff() {
    local raw record
    raw=
    if [ "${1-}" = --raw ]; then
        raw=yes
        shift
    fi
    [ "$#" -eq 1 ] || die 100 'diff takes one id' 'system-migrate diff 20240206-001_add_postgresql'
    capture_name "$1" || die 4 "'$1' is no id" 'system-migrate status lists the migrations'
    record=$SYS/migrations/$1
    [ -f "$record/record" ] || record=$SYS/captures/$1
    [ -f "$record/record" ] || die 4 "there is no record of $1" 'system-migrate status lists the migrations'
    if [ -n "$raw" ]; then
        sed 's/^/record /' "$record/record"
        sed 's/^/change /' "$record/changes.list"
        [ ! -f "$record/who.list" ] || cat "$record/who.list"
        echo end
    else
        diff_show "$1" "$record"
    fi
}

# diff_show ID RECORD: the text for people. Paths with fewer than five parts stand for all below them.
diff_show() {
    [ -f "$2/who.list" ] || set -- "$1" "$2" /dev/null
    # The sort(1) that awk runs is not the function of that name.
    TMPDIR=$RUN awk -v id="$1" '
        function amount(n,    unit) {
            for (unit = 1; n >= 1000 && unit < 4; unit++) n /= 1000
            return sprintf(unit == 1 ? "%d B" : "%.1f " substr("  kBMBGB", unit * 2 - 1, 2), n)
        }
        function base(path) { sub(/.*\//, "", path); return path }
        # What a process is called: a program, or the script that an interpreter runs.
        function called(n,    i, word, count, found) {
            found = base(program[n])
            if (found !~ /^(sh|dash|bash|perl|python[0-9.]*)$/) return found
            count = split(arguments[n], word, " ")
            for (i = 2; i <= count; i++) if (word[i] !~ /^-/) return i > 2 && word[i - 1] == "-c" ? found : word[i] ~ /^\// ? base(word[i]) : found
            return found
        }
        # It and those that started it, up to the install script.
        function chain(n,    text, name, last) {
            while (n) {
                name = called(n)
                # What `capture` starts a command through.
                if (name == "env" && arguments[n] ~ /--default-signal=/) return text
                if (name == "init.sh") return text == "" ? "system-migrate" : text " < system-migrate"
                if (name != last && name != "frontend") text = text (text == "" ? "" : " < ") name
                if (name == "install.sh") break
                last = name
                n = parent[n]
            }
            return text
        }
        function place(path,    part, n, i, text) {
            n = split(path, part, "/")
            for (i = 1; i < n && i <= 4; i++) text = text "/" part[i]
            return text == "" ? "/" : text
        }
        part == 1 { record[$1] = $2; next }
        part == 2 && $1 == "process" {
            parent[$2] = $3; program[$2] = $5
            text = ""
            for (i = 6; i <= NF; i++) text = text (i > 6 ? " " : "") $i
            arguments[$2] = text
            next
        }
        part == 2 && $1 == "path" { by[$4] = $2; package[$4] = $3; next }
        part == 2 && $1 == "also" { also[$2 "\t" place($4)]++; also_by[$2 "\t" place($4)] = $3; next }
        part == 2 && $1 == "unexplained" { why[++puzzles] = $2 ": " $3 ": /" $4; next }
        part == 2 { next }
        {
            group = ($9 in package) && package[$9] != "-" ? package[$9] : "(no package)"
            key = group "\t" place($9)
            ops[key, $1]++; sizes[key] += $6; groups[group]++; group_size[group] += $6; total += $6; changes++
            if ($9 in by) { done = chain(by[$9]); if (!((key, done) in seen)) { seen[key, done]; whos[key] = whos[key] (whos[key] == "" ? "" : "; ") done } }
            keys[key]
        }
        END {
            print id ": " changes + 0 " changes, " amount(total)
            print "audit: " (record["audit"] == "" ? "not recorded" : record["audit"]) \
                ("events" in record ? ", " record["events"] " events, " record["lost"] " lost, " record["unexplained"] " unexplained" : "")
            fflush()
            sorted = "sort -t \"\t\" -k 1,1 -k 2,2n -k 3 | cut -f 4-"
            for (group in groups) print group "\t0\t\t\n" group "\t0\t\t" group ": " groups[group] " changes, " amount(group_size[group]) | sorted
            for (key in keys) {
                split(key, field, "\t")
                text = ""
                for (i = 1; i <= 4; i++) { op = substr("ACMD", i, 1); if ((key, op) in ops) text = text op ops[key, op] " " }
                print field[1] "\t1\t" field[2] "\t    " sprintf("%-14s %9s  %s", text, amount(sizes[key]), field[2]) (whos[key] == "" ? "" : "  " whos[key]) | sorted
            }
            close(sorted)
            first = 1
            for (key in also) {
                if (first) { print "\nalso seen:"; fflush(); first = 0 }
                split(key, field, "\t")
                print sprintf("    %-10s %5d  %s  %s", field[1], also[key], field[2], chain(also_by[key])) | "sort"
            }
            close("sort")
            if (puzzles) print "\nunexplained:"
            for (i = 1; i <= puzzles; i++) print "    " why[i]
            print "\nA added, C changed, M metadata, D deleted"
        }' part=1 "$2/record" part=2 "${3:-$2/who.list}" part=3 "$2/changes.list"
}
