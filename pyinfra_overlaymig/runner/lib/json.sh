# JSON, from values that were validated when they were written: ids, names, numbers, times, escaped paths.
# shellcheck shell=dash

# json_list WORD…: an array of strings, to standard output. Words are ASCII; only backslashes need care.
json_list() {
    local separator word
    separator=
    printf '['
    for word; do
        case $word in *\\*) word=$(printf '%s' "$word" | sed 's/\\/\\\\/g') ;; esac
        printf '%s"%s"' "$separator" "$word"
        separator=,
    done
    printf ']'
}

# json_migration ID: one migration's record, to standard output. Reads each file once, without a process of its own.
json_migration() {
    local status applied_at digest generation files size states services key value active audit lost unexplained
    status=committed applied_at='' digest='' generation=0 files=0 size=0 states='' services='' audit='' lost=null unexplained=null
    while read -r key value; do
        case $key in
        digest) digest=$value ;; generation) generation=$value ;; files) files=$value ;; size) size=$value ;;
        audit) audit=$value ;; unexplained) unexplained=$value ;; lost) [ "$value" = unknown ] || lost=$value ;;
        state) states="$states $value" ;; service) services="$services $value" ;;
        esac
    done 2>/dev/null <"$SYS/migrations/$1/record" || return 0
    if [ -f "$SYS/migrations/$1/applied" ]; then
        status=applied
        while read -r key value; do [ "$key" != at ] || applied_at=$value; done <"$SYS/migrations/$1/applied"
    fi
    active=false
    case " $stack " in *" $1 "*) active=true ;; esac
    printf '{"id":"%s","digest":"%s","status":"%s","applied_at":"%s","generation":%s,"active":%s,"files":%s,"size":%s' \
        "$1" "$digest" "$status" "$applied_at" "$generation" "$active" "$files" "$size"
    # shellcheck disable=SC2086 # lists of words
    printf ',"audit":"%s","lost":%s,"unexplained":%s' "$audit" "$lost" "$unexplained"
    # shellcheck disable=SC2086 # one word for each value
    printf ',"state":%s,"services":%s}' "$(json_list $states)" "$(json_list $services)"
}

# json_migrations: all of them, in order, as an array, to standard output.
json_migrations() {
    local stack comma dir one
    stack=$(generation_stack "$(generation_current)" | tr '\n' ' ')
    comma=
    printf '['
    for dir in "$SYS/migrations"/*/; do
        dir=${dir%/}
        # A record may go while it is read: its migration is being reverted.
        if [ ! -f "$dir/record" ] || ! one=$(json_migration "${dir##*/}" 2>/dev/null) || [ -z "$one" ]; then continue; fi
        printf '%s%s' "$comma" "$one"
        comma=,
    done
    printf ']'
}

# metadata_write: the index of all migrations, rendered from their folders.
metadata_write() {
    write_file "$SYS/migrations/metadata.json" "{\"format\":$FORMAT,\"migrations\":$(json_migrations)}"
}
