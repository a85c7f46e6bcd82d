# Generations and their stacks: what is current, what it is made of, and the overlay mount of it.
# shellcheck shell=dash

# generation_current: the number that `current` names, 0 (the base alone) when there is none, to standard output.
generation_current() {
    if [ -L "$SYS/generations/current" ]; then linked "$SYS/generations/current" "$SYS/generations"/[0-9]*; else echo 0; fi
}

# generation_newest: the highest number ever given out, to standard output.
generation_newest() {
    local newest file
    newest=0
    for file in "$SYS/generations"/[0-9]*; do
        case ${file##*/} in *[!0-9]*) continue ;; esac
        [ "${file##*/}" -le "$newest" ] || newest=${file##*/}
    done
    echo "$newest"
}

# generation_stack N: its layers, lowest first, one a line, to standard output.
generation_stack() {
    [ "$1" = 0 ] || plan_values layer "$SYS/generations/$1"
}

# generation_write N STACK-FILE [LINE]: records generation N. The file is complete before it has its name.
generation_write() {
    local text layer
    text="format $FORMAT
made $(now)
base $(base_identity '')${3:+
$3}"
    while read -r layer; do
        text="$text
layer $layer"
    done <"$2"
    write_file "$SYS/generations/$1" "$text"
}

# generation_set N: the commit point. Makes N current by one rename, and that rename durable.
generation_set() {
    if [ "$1" = 0 ]; then
        rm -f -- "$SYS/generations/current"
    else
        ln -sfn -- "$1" "$SYS/generations/current.new"
        mv -fT -- "$SYS/generations/current.new" "$SYS/generations/current"
    fi
    sync "$SYS/generations"
}

# generation_whole N: true when N is recorded completely and each of its layers is there; otherwise says what is not.
generation_whole() {
    local layer
    [ "$1" != 0 ] || return 0
    [ -n "$(plan_values made "$SYS/generations/$1")" ] || { warn "generation $1 is not readable"; return 1; }
    for layer in $(generation_stack "$1"); do
        [ -d "$SYS/layers/$layer" ] || { warn "generation $1 lacks its layer $layer"; return 1; }
    done
}

# generation_applied N: true when each layer of N is there and its migration was finished.
generation_applied() {
    local layer
    for layer in $(generation_stack "$1"); do
        [ -d "$SYS/layers/$layer" ] && [ -f "$SYS/migrations/$layer/applied" ] || return 1
    done
}

# generation_before N: what N was made over by a migration: the newest generation below N with N's stack but its topmost
# layer, 0 when that is the base alone. Not just the one before by number: that one may have been taken back.
generation_before() {
    local n below
    below=$(generation_stack "$1" | sed '$d')
    n=0
    if [ -n "$below" ]; then
        n=$(($1 - 1))
        while [ "$n" -gt 0 ] && [ "$(generation_stack "$n")" != "$below" ]; do n=$((n - 1)); done
    fi
    echo "$n"
}

# stack_has ID: true when ID is a layer of the current generation.
stack_has() {
    local layer
    for layer in $(generation_stack "$(generation_current)"); do
        [ "$layer" != "$1" ] || return 0
    done
    return 1
}

# stack_values KEY NAME: the values of KEY in the files NAME of the current generation's migrations, to standard output.
stack_values() {
    local key name layer
    key=$1 name=$2
    set --
    for layer in $(generation_stack "$(generation_current)"); do
        set -- "$@" "$SYS/migrations/$layer/$name"
    done
    [ "$#" -eq 0 ] || sed -n "s/^$key //p" "$@" 2>/dev/null || :
}

# stack_state: every state path of the current generation's migrations, escaped, one a line, to standard output.
stack_state() {
    stack_values state record | sort -u
}

# stack_links DIR GENERATION: short names for its layers in DIR, and the value of lowerdir=, relative to DIR, left in
# $lowerdir. A mount's options end at one page: 400 layers fit only under names of a few characters. A name that is right
# already stays: from one generation to the next most are.
stack_links() {
    local number layer
    make_dirs "$1"
    [ -L "$1/0" ] || ln -sfn / "$1/0"
    lowerdir=0
    number=0
    generation_whole "$2"
    for layer in $(generation_stack "$2"); do
        number=$((number + 1))
        [ "$1/$number" -ef "$SYS/layers/$layer" ] || ln -sfn -- "$SYS/layers/$layer" "$1/$number"
        lowerdir=$number:$lowerdir
    done
}

# stack_mount_lower DIR MOUNTPOINT GENERATION: its stack over the base, read-only. Without layers, the base itself.
stack_mount_lower() {
    stack_links "$1" "$3"
    if [ "$lowerdir" = 0 ]; then
        mount --bind -o ro / "$2"
    else
        (cd "$1" && mount -t overlay overlay -o "ro,$PLAIN,lowerdir=$lowerdir" "$2")
    fi
}

# stack_mount DIR MOUNTPOINT UPPER WORK [OPTION…]: the current stack, writable in UPPER.
# UPPER and WORK are reached through links in DIR too, so that no character of theirs can be read as an option.
stack_mount() {
    stack_links "$1" "$(generation_current)"
    ln -sfn -- "$3" "$1/u"
    ln -sfn -- "$4" "$1/w"
    (cd "$1" && mount -t overlay overlay -o "$PLAIN,lowerdir=$lowerdir,upperdir=u,workdir=w${5:+,$5}" "$2")
}
