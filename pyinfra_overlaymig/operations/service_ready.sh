#!/bin/sh
# Waits until a service is ready, and says why it is not. service.sh goes on where this ends, and sets what this does not:
# both are sent as one.
# shellcheck disable=SC2154

# Seconds by a clock that nobody sets.
seconds_up() { while read -r up _; do echo "${up%%.*}"; done </proc/uptime; }

# fail WHAT HINT: says both and leaves.
fail() {
    printf 'service %s %s\n  hint: %s\n' "$name" "$1" "$2" >&2
    exit 1
}

# fail_with_output WHAT: the same with the end of the service's log, which tells more than any hint.
fail_with_output() {
    printf 'service %s %s\n' "$name" "$1" >&2
    if [ -s "$log/current" ]; then
        printf 'its last output, from %s:\n' "$log/current" >&2
        tail -n 20 -- "$log/current" | readable | sed 's/^/    /' >&2
    elif [ -n "$log" ]; then
        printf '  hint: it wrote nothing to %s\n' "$log" >&2
    else
        printf '  hint: it has no log of its own; see the output of s6-svscan\n' >&2
    fi
    exit 1
}

# readable: its input as text that does a terminal no harm, of lines drawn over and over the last form.
readable() {
    LC_ALL=C sed "$(printf 's/\r*$//; s/.*\r//; s/\302[\200-\237]/?/g; s/\342\200[\216\217\252-\256]/?/g')" |
        LC_ALL=C tr '\000-\010\013-\037\177' '[?*]' |
        if command -v iconv >/dev/null; then iconv -c -f UTF-8 -t UTF-8 || :; else LC_ALL=C tr '\200-\377' '[?*]'; fi
}

# in_time: true until the time is over; a moment passes.
in_time() { [ "$(seconds_up)" -lt "$until" ] && sleep 0.1; }

ready() {
    settle=@SETTLES@ deaths=@DEATHS@ starts=0 last=
    deaths=$((deaths + ${1:-0}))
    if [ ! -f "$dir/@TELLS@" ] || [ -f "$dir/@BEGINS@" ]; then settle=@SETTLES_SILENT@; fi
    while :; do
        read -r pid told wanted age <<END
$(s6-svstat -o pid,ready,wantedup,updownfor "$dir" 2>/dev/null || echo -1 false true 0)
END
        [ -f "$dir/@TELLS@" ] || told=true
        set -- "$pid" "$told" "$wanted" "$age"
        if [ "$1" -gt 0 ] && [ "$1" != "$last" ]; then
            last=$1
            starts=$((starts + 1))
        fi
        if [ "$1" -gt 0 ] && [ "$2" = true ] && [ "$4" -ge "$settle" ]; then return 0; fi
        [ "$3" = true ] || fail_with_output "has given up: $(last_death)"
        if [ "$starts" -gt "$deaths" ] || [ "$(died)" -ge "$deaths" ]; then
            fail_with_output "died three times while it started: $(last_death)"
        fi
        in_time || break
    done
    # Ready at last, be it not for long.
    if [ "$1" -gt 0 ] && [ "$2" = true ]; then return 0; fi
    fail_with_output "is not ready within $seconds s"
}

# died: how often it did since BEFORE, its last death then, as s6-supervise counts: it may be fast, and this is not. It
# counts up to its max-death-tally.
died() {
    s6-svdt "$dir" 2>/dev/null | {
        count=0
        while read -r death; do
            count=$((count + 1))
            [ "$death" != "$before" ] || count=0
        done
        echo "$count"
    }
}

# last_death: how its process ended the last time, to standard output.
last_death() { s6-svdt -n 1 "$dir" 2>/dev/null | cut -d ' ' -f 2-; }
